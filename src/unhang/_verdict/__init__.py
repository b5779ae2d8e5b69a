"""What the evidence says, without asking anybody: stacks, the class of a hang, who is to blame."""
