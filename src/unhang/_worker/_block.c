/* A block and its timer in C: what unhang._worker.plain does in Python, in a small part of its time. Here is what runs
   in every block; the rest comes from the bases of the types, in Python (unhang._worker.bases). The layout comes from
   unhang._core.page: as macros PAGE_... for the compiler, and compared again by unhang._worker.implementation.

   Some facts about the order of loads and stores:

   - The GIL orders what the writers of a slot do, one after the other. The reader is another process: what it sees is
     ordered by the operations below alone.
   - A deadline and what belongs to it. An arming starts with a deadline that is marked as not armed (by leaving the
     last block, or by move()), then a release fence, then the other words, then the new deadline. A reader takes the
     deadline, the other words and the deadline again, in this order. If it saw one of the new words, its second look
     sees the mark that lies before them, or what came later; so two looks at the same unmarked deadline say that all
     of it is of one arming. It is a sequence lock with the deadline for a number (H.-J. Boehm, Can seqlocks get along
     with programming language memory models?, 2012).
   - The kick. A worker stores its deadline, then loads `wake`; the watchdog stores `wake`, then loads the deadlines. If
     neither saw what the other stored, a deadline before `wake` would be found too late. The two here are sequentially
     consistent, and the watchdog has a fence() in between: one of the stores comes before the other side's load. With
     release and acquire both loads might come first: even x86 lets a load pass a store to another place.

   Signal handlers of Python run between bytecodes: in __enter__, __exit__ and restart only where those call Python (for
   a slot, or to tell the watchdog). The timer is armed then or is not, and what is used behind it is looked up anew. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdatomic.h>
#include <stdint.h>
#include <structmember.h>
#include <time.h>
#include <unistd.h>

#ifndef SPARE_TIMERS
#define SPARE_TIMERS 32
#endif
/* What is compared with unhang._core.page when this is loaded. */
#define LAYOUT(DO) DO(VERSION) DO(SLOT_WORDS) DO(NEVER) DO(DEADLINE) DO(SEQUENCE) DO(TIMEOUT) DO(THREAD) DO(DURATIONS)
#define FORMAT(name) "sL"
#define PAIR(name) #name, (long long)PAGE_##name,
typedef _Atomic int64_t Word;

/* A memoryview, and its words; none for UNWATCHED, which stands for the header of a page that nobody watches. */
typedef struct { PyObject *object; Py_buffer buffer; Word *words; } View;

/* The objects that a type holds, which are its members in Python too. */
#define SITE_OBJECTS(DO) DO(Site, slots) DO(Site, scope) DO(Site, label) DO(Site, source) DO(Site, clock) DO(Site, free)
#define SLOT_OBJECTS(DO) DO(Slot, free) DO(Slot, spare)
#define TIMER_OBJECTS(DO) DO(Timer, site) DO(Timer, slot)
#define HEARTBEAT_OBJECTS(DO) DO(Heartbeat, _args) DO(Heartbeat, _options) DO(Heartbeat, _timer)
#define FIELD(Type, name) PyObject *name;
#define MEMBER(Type, name) {#name, T_OBJECT_EX, offsetof(Type, name), 0, NULL},
#define NUMBER(Type, name) {#name, T_LONGLONG, offsetof(Type, name), 0, NULL},
#define VISIT(Type, name) Py_VISIT(self->name);
#define CLEAR(Type, name) Py_CLEAR(self->name);
#define TRAVERSE(Type, OBJECTS)                                                                                        \
    static int Type##_traverse(Type *self, visitproc visit, void *arg) {                                               \
        Py_VISIT(Py_TYPE(self));                                                                                       \
        OBJECTS(VISIT) return 0;                                                                                       \
    }

typedef struct {
    PyObject_HEAD SITE_OBJECTS(FIELD)
    long long after, slack, ending, pretimeout;
    View durations; /* of its scope, while they are learned */
} Site;

typedef struct {
    PyObject_HEAD SLOT_OBJECTS(FIELD)
    PyObject *weak;
    View cell, watched;
    long long count;
    pid_t pid; /* who has placed it: a child is not to touch the words of its parent */
} Slot;

typedef struct {
    PyObject_HEAD
    Site *site;
    Slot *slot; /* while it is armed or suspended */
    long long left;
    char was_entered;
} Timer;

typedef struct { PyObject_HEAD HEARTBEAT_OBJECTS(FIELD) char _closed; } Heartbeat;

/* The arguments of expires(), in order; the first three may be given by position. */
static const char *const ARGUMENTS[] = {"after", "scope", "client", "signal", "grace", "pretimeout"};
enum { AFTER, SCOPE, CLIENT, ASKED = 6 };

/* What expires() was asked for, by identity, and the site that it found. In place of the client stands its dict of
   sites; in place of no scope the code that called, and the instruction. An entry holds what was asked for, but not the
   site, which takes its entries along when it goes, nor the dict, which the site keeps alive. */
typedef struct { PyObject *asked[ASKED]; int instruction; Site *site; } Entry;
#define ENTRY_BITS 9
static struct { /* one interpreter loads this, once */
    PyTypeObject *site, *slot, *timer, *heartbeat;
    PyObject *monotonic_ns, *warn, *arguments[ASKED], *sites;
    PyObject *plain, *text, *client_type, *default_sites; /* of expires(); plain is a weak reference */
    Entry entries[1 << ENTRY_BITS];
    Timer *spare[SPARE_TIMERS + 1];
    int spares;
} the;

static inline int64_t load(const View *view, int index) {
    return atomic_load_explicit(&view->words[index], memory_order_relaxed);
}

static inline void store(View *view, int index, int64_t value) {
    atomic_store_explicit(&view->words[index], value, memory_order_relaxed);
}

static inline void mark_as_not_armed(Slot *slot) {
    int64_t deadline = load(&slot->cell, PAGE_DEADLINE);
    atomic_store_explicit(&slot->cell.words[PAGE_DEADLINE], deadline | PAGE_NEVER, memory_order_release);
}

/* Arm a slot that is marked as not armed. Returns whether the watchdog has to be told, as it will not look in time, or
   should have looked long ago: not wake <= deadline <= wake + slack. */
static inline int arm(Slot *slot, int64_t deadline, int64_t timeout, int64_t slack) {
    atomic_thread_fence(memory_order_release);
    store(&slot->cell, PAGE_TIMEOUT, timeout);
    store(&slot->cell, PAGE_SEQUENCE, slot->count);
    store(&slot->cell, PAGE_THREAD, (int64_t)PyThreadState_Get()->native_thread_id);
    atomic_store_explicit(&slot->cell.words[PAGE_DEADLINE], deadline, memory_order_seq_cst);
    if (!slot->watched.words)
        return 0;
    int64_t wake = atomic_load_explicit(&slot->watched.words[0], memory_order_seq_cst);
    return (uint64_t)deadline - (uint64_t)wake > (uint64_t)slack;
}

static int read_clock(Site *site, int64_t *now) {
    if (site->clock == the.monotonic_ns) {
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        *now = (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
        return 0;
    }
    PyObject *answer = PyObject_CallFunction(site->clock, NULL);
    *now = answer ? PyLong_AsLongLong(answer) : -1;
    Py_XDECREF(answer);
    return *now == -1 && PyErr_Occurred() ? -1 : 0;
}

/* Whether the block in this slot is to be learned: it is none that was suspended, extended, or inherited by a child. */
static inline int is_learned(Site *site, Slot *slot, int64_t deadline) {
    return site->durations.words && deadline < PAGE_NEVER && load(&slot->cell, PAGE_TIMEOUT) == site->after &&
           slot->watched.words;
}

/* Write down how long a block took; in which bucket, unhang._core.durations.bucket_of says. */
static void learn(Site *site, int64_t took) {
    View *to = &site->durations;
    int octave = took > 0 ? 63 - __builtin_clzll((uint64_t)took) : 0;
    int bucket = (octave - DURATIONS_SHORTEST_OCTAVE) * 4 + (int)(took >> Py_MAX(octave - 2, 0) & 3);
    bucket = octave < DURATIONS_SHORTEST_OCTAVE ? 0 : Py_MIN(bucket, DURATIONS_BUCKET_COUNT - 1);
    if (!to->words)
        return; /* not any more: the clock of a test has been asked meanwhile */
    if (!load(to, DURATIONS_FIRST))
        return store(to, DURATIONS_FIRST, Py_MAX(took, 1));
    store(to, DURATIONS_BUCKETS + bucket, load(to, DURATIONS_BUCKETS + bucket) + 1);
    store(to, DURATIONS_LONGEST, Py_MAX(load(to, DURATIONS_LONGEST), took));
}

TRAVERSE(Site, SITE_OBJECTS) TRAVERSE(Slot, SLOT_OBJECTS)
TRAVERSE(Timer, TIMER_OBJECTS) TRAVERSE(Heartbeat, HEARTBEAT_OBJECTS)

static int Heartbeat_clear(Heartbeat *self) { HEARTBEAT_OBJECTS(CLEAR) return 0; }

static void entry_set(Entry *entry, Entry new) {
    Entry old = *entry;
    for (int i = 0; i < ASKED; i++)
        Py_XINCREF(i == CLIENT ? NULL : new.asked[i]);
    *entry = new;
    for (int i = 0; i < ASKED; i++)
        Py_XDECREF(i == CLIENT ? NULL : old.asked[i]);
}

static void view_drop(View *view) {
    View old = *view;
    *view = (View){0};
    if (old.words)
        PyBuffer_Release(&old.buffer);
    Py_XDECREF(old.object);
}

static int Site_clear(Site *self) {
    for (int i = 0; i < 1 << ENTRY_BITS; i++)
        if (the.entries[i].site == self)
            entry_set(&the.entries[i], (Entry){0});
    view_drop(&self->durations);
    SITE_OBJECTS(CLEAR) return 0;
}

static void collected_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    type->tp_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef Site_members[] = {
    SITE_OBJECTS(MEMBER)
    NUMBER(Site, after) NUMBER(Site, slack) NUMBER(Site, ending) NUMBER(Site, pretimeout) {0},
};

/* Takes the reference to the item. What the list does not take is dropped. */
static void append(PyObject *list, PyObject *item) {
    if (item && list && PyList_Check(list) && PyList_Append(list, item) < 0)
        PyErr_Clear();
    Py_XDECREF(item);
}

static void Slot_dealloc(Slot *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject *error[3], *told = NULL;
    int is_ours = self->cell.words && self->pid == getpid();
    int is_armed = is_ours && load(&self->cell, PAGE_DEADLINE) < PAGE_NEVER;
    if (is_armed)
        mark_as_not_armed(self);
    PyObject_GC_UnTrack(self); /* what is called may start a collection */
    PyErr_Fetch(&error[0], &error[1], &error[2]);
    if (is_armed && !(told = PyObject_CallOneArg(the.warn, self->cell.object)))
        PyErr_WriteUnraisable(the.warn);
    Py_XDECREF(told);
    if (is_ours)
        append(self->spare, PyTuple_Pack(2, self->cell.object, self->watched.object));
    if (self->weak)
        PyObject_ClearWeakRefs((PyObject *)self);
    PyErr_Restore(error[0], error[1], error[2]);
    view_drop(&self->cell);
    view_drop(&self->watched);
    SLOT_OBJECTS(CLEAR)
    type->tp_free(self);
    Py_DECREF(type);
}

static int view_set(View *view, PyObject *object, Py_ssize_t size) {
    View old = *view, new = {.object = object};
    if (PyMemoryView_Check(object) && PyObject_GetBuffer(object, &new.buffer, PyBUF_WRITABLE) < 0)
        return -1;
    Py_INCREF(object);
    new.words = new.buffer.buf;
    int is_right = !new.words || (new.buffer.len >= size && (uintptr_t)new.words % sizeof(Word) == 0);
    *view = is_right ? new : old;
    view_drop(is_right ? &old : &new);
    return is_right || PyErr_Format(PyExc_ValueError, "these are not %zd bytes of words", size) ? 0 : -1;
}

/* Where to write down how long its blocks take; None: nowhere. */
static PyObject *Site_keep(Site *self, PyObject *durations) {
    return view_set(&self->durations, durations, DURATIONS_RECORD_BYTES) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef Site_methods[] = {{"keep", (PyCFunction)Site_keep, METH_O, NULL}, {0}};
static PyObject *Slot_place(Slot *self, PyObject *args) {
    PyObject *cell, *watched;
    if (!PyArg_ParseTuple(args, "O!O:_place", &PyMemoryView_Type, &cell, &watched) ||
        view_set(&self->cell, cell, PAGE_SLOT_BYTES) < 0 || view_set(&self->watched, watched, 2 * sizeof(Word)) < 0)
        return NULL;
    self->pid = getpid();
    Py_RETURN_NONE;
}

static PyMethodDef Slot_methods[] = {{"_place", (PyCFunction)Slot_place, METH_VARARGS, ""}, {0}};
static PyMemberDef Slot_members[] = {
    SLOT_OBJECTS(MEMBER)
    {"cell", T_OBJECT_EX, offsetof(Slot, cell.object), READONLY, NULL},
    {"watched", T_OBJECT_EX, offsetof(Slot, watched.object), READONLY, NULL},
    NUMBER(Slot, count)
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Slot, weak), READONLY, NULL}, {0},
};

/* An idle slot of the site, or another one; a new reference. */
static Slot *take(Site *site) {
    PyObject *slot;
    Py_ssize_t idle = site->free && PyList_CheckExact(site->free) ? PyList_GET_SIZE(site->free) : 0;
    if (idle) {
        slot = PyList_GET_ITEM(site->free, idle - 1);
        Py_SET_SIZE(site->free, idle - 1); /* as list.pop() does it: the list's reference is ours now */
    }
    else
        slot = PyObject_CallMethod(site->slots, "take", "O", site);
    if (!slot || (Py_IS_TYPE(slot, the.slot) && ((Slot *)slot)->cell.words))
        return (Slot *)slot;
    Py_DECREF(slot);
    return (Slot *)PyErr_Format(PyExc_TypeError, "this is no idle slot");
}

static int tell(Timer *self, const char *method, Slot *slot, int64_t deadline) {
    PyObject *done = PyObject_CallMethod((PyObject *)self, method, "OL", slot, (long long)deadline);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static PyObject *timer_new(Site *site) {
    Timer *self = the.spares ? the.spare[--the.spares] : NULL;
    Py_INCREF(site); /* before a collection that a new object may start */
    if (self)
        (void)PyObject_Init((PyObject *)self, the.timer);
    else if (!(self = PyObject_GC_New(Timer, the.timer)))
        return Py_DECREF(site), NULL;
    self->site = site;
    self->slot = NULL;
    self->left = self->was_entered = 0;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static PyObject *Timer_new(PyTypeObject *Py_UNUSED(type), PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    Site *site;
    return PyArg_ParseTuple(args, "O!:Timer", the.site, &site) ? timer_new(site) : NULL;
}

static void Timer_dealloc(Timer *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->slot); /* if it is armed, this disarms it, and tells of a leak */
    Py_CLEAR(self->site);
    if (SPARE_TIMERS && the.spares < SPARE_TIMERS)
        the.spare[the.spares++] = self;
    else
        type->tp_free(self);
    Py_DECREF(type);
}

/* Returns whether it was armed or suspended. */
static int leave(Timer *self) {
    Slot *slot = self->slot;
    if (!slot)
        return 0;
    mark_as_not_armed(slot);
    self->slot = NULL;
    append(slot->free, (PyObject *)slot);
    return 1;
}

static PyObject *Timer_enter(Timer *self, PyObject *Py_UNUSED(ignored)) {
    Site *site = self->site;
    int64_t now;
    if (self->slot)
        return PyObject_CallMethod((PyObject *)self, "_refuse", "s", "enter");
    Slot *slot = take(site);
    if (!slot || read_clock(site, &now) < 0) {
        Py_XDECREF(slot);
        return NULL;
    }
    if (self->slot) { /* a signal handler has entered it meanwhile */
        append(slot->free, (PyObject *)slot);
        return PyObject_CallMethod((PyObject *)self, "_refuse", "s", "enter");
    }
    slot->count++;
    self->slot = slot;
    self->was_entered = 1;
    if (arm(slot, now + site->after, site->after, site->slack) &&
        tell(self, "_attend", slot, now + site->after) < 0)
        return leave(self), NULL;
    return Py_NewRef(self);
}

static PyObject *Timer_exit(Timer *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 3)
        return PyErr_Format(PyExc_TypeError, "__exit__() takes 3 arguments, not %zd", nargs);
    int64_t deadline = self->slot ? load(&self->slot->cell, PAGE_DEADLINE) : 0, now;
    int is_to_learn = self->slot && is_learned(self->site, self->slot, deadline);
    if (!leave(self) && args[0] == Py_None) /* an exception of the block comes out as it went in */
        return PyObject_CallMethod((PyObject *)self, "_refuse", "s", "leave");
    if (is_to_learn && read_clock(self->site, &now) < 0)
        return NULL;
    if (is_to_learn)
        learn(self->site, now - (deadline - self->site->after));
    Py_RETURN_NONE;
}

/* Marked as if it were armed anew: nobody takes one half of it and the other for a whole. */
static PyObject *move(Timer *self, Slot *slot, int64_t deadline, int64_t timeout) {
    mark_as_not_armed(slot);
    if (arm(slot, deadline, timeout, timeout + (self->site->slack - self->site->after)) &&
        tell(self, "_notify", slot, deadline) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *Timer_move(Timer *self, PyObject *args) {
    Slot *slot;
    long long deadline, timeout;
    if (!PyArg_ParseTuple(args, "O!LL:_move", the.slot, &slot, &deadline, &timeout))
        return NULL;
    return slot == self->slot ? move(self, slot, deadline, timeout) : Py_NewRef(Py_None); /* its block was left */
}

static PyObject *Timer_restart(Timer *self, PyObject *Py_UNUSED(ignored)) {
    int64_t now;
    Slot *slot = self->slot;
    if (slot && slot->free != self->site->free)
        return PyObject_CallMethod((PyObject *)self, "_restart_apart", NULL);
    int64_t deadline = slot ? load(&slot->cell, PAGE_DEADLINE) : PAGE_NEVER;
    if (deadline >= PAGE_NEVER)
        return PyObject_CallMethod((PyObject *)self, "_refuse", "s", "restart");
    if (read_clock(self->site, &now) < 0 || slot != self->slot)
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    slot->count++;
    if (is_learned(self->site, slot, deadline))
        learn(self->site, now - (deadline - self->site->after));
    return move(self, slot, now + self->site->after, self->site->after);
}

static PyMethodDef Timer_methods[] = {
    {"__enter__", (PyCFunction)Timer_enter, METH_NOARGS, "__enter__($self)\n--\n\n"},
    {"__exit__", (PyCFunction)(void (*)(void))Timer_exit, METH_FASTCALL,
     "__exit__($self, exc_type, exc, traceback, /)\n--\n\n"},
    {"restart", (PyCFunction)Timer_restart, METH_NOARGS, "restart($self)\n--\n\n"},
    {"_move", (PyCFunction)Timer_move, METH_VARARGS, NULL}, {0},
};
static PyMemberDef Timer_members[] = {
    {"_site", T_OBJECT_EX, offsetof(Timer, site), READONLY, NULL},
    {"_slot", T_OBJECT, offsetof(Timer, slot), READONLY, NULL},
    {"_left", T_LONGLONG, offsetof(Timer, left), 0, NULL},
    {"_was_entered", T_BOOL, offsetof(Timer, was_entered), READONLY, NULL}, {0},
};

static PyObject *Heartbeat_beat(Heartbeat *self, PyObject *Py_UNUSED(ignored)) {
    PyObject *timer = Py_XNewRef(self->_timer), *done; /* a signal handler may close the heartbeat */
    if (!timer || timer == Py_None || (Py_IS_TYPE(timer, the.timer) && !((Timer *)timer)->slot))
        done = PyObject_CallMethod((PyObject *)self, "_begin", NULL);
    else if (Py_IS_TYPE(timer, the.timer))
        done = Timer_restart((Timer *)timer, NULL);
    else
        done = PyObject_CallMethod(timer, "restart", NULL);
    Py_XDECREF(timer);
    return done;
}

static PyMethodDef Heart_methods[] = {{"beat", (PyCFunction)Heartbeat_beat, METH_NOARGS, "beat($self)\n--\n\n"}, {0}};
static PyMemberDef Heartbeat_members[] = {
    HEARTBEAT_OBJECTS(MEMBER) {"_closed", T_BOOL, offsetof(Heartbeat, _closed), 0, NULL}, {0},
};

static Entry *entry_for(const Entry *wanted) {
    PyObject *place = wanted->asked[SCOPE];
    uint64_t mixed = PyUnicode_CheckExact(place) ? (uint64_t)PyObject_Hash(place) : (uintptr_t)place;
    mixed += (uintptr_t)wanted->asked[AFTER] * UINT64_C(31) + (uint64_t)wanted->instruction * 1021;
    return &the.entries[mixed * UINT64_C(0x9E3779B97F4A7C15) >> (64 - ENTRY_BITS)]; /* Fibonacci hashing */
}

/* Scopes may be put together anew for each call: they are compared as texts. */
static int is_same(const Entry *one, const Entry *other) {
    PyObject *scope = one->asked[SCOPE], *its = other->asked[SCOPE];
    if (one->instruction != other->instruction || one->asked[AFTER] != other->asked[AFTER] ||
        memcmp(&one->asked[CLIENT], &other->asked[CLIENT], (ASKED - CLIENT) * sizeof(PyObject *)) != 0)
        return 0;
    return scope == its ||
           (PyUnicode_CheckExact(scope) && PyUnicode_CheckExact(its) && PyUnicode_Compare(scope, its) == 0);
}

/* What has a type of C that can be hashed stays what it is: its identity says all. */
static void remember(Entry wanted, Site *site) {
    for (int i = 0; i < ASKED; i++) {
        PyTypeObject *type = Py_TYPE(wanted.asked[i == CLIENT ? AFTER : i]);
        if (type->tp_flags & Py_TPFLAGS_HEAPTYPE || type->tp_hash == PyObject_HashNotImplemented)
            return;
    }
    wanted.site = site;
    entry_set(entry_for(&wanted), wanted);
}

/* Returns whether the call is an ordinary one; if not, the plain function says what is wrong with it. */
static int parse(PyObject *const *args, Py_ssize_t nargs, PyObject *names, PyObject **asked) {
    if (nargs > CLIENT + 1)
        return 0;
    for (Py_ssize_t i = 0; i < nargs; i++)
        asked[i] = args[i];
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); i++) {
        int argument = 0;
        while (argument < ASKED && the.arguments[argument] != PyTuple_GET_ITEM(names, i))
            argument++;
        if (argument == ASKED || argument < nargs)
            return 0;
        asked[argument] = args[nargs + i];
    }
    return asked[AFTER] != NULL;
}

static PyObject *call_plain(PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    PyObject *plain = PyObject_CallNoArgs(the.plain);
    PyObject *timer = plain ? PyObject_Vectorcall(plain, args, nargs, names) : NULL;
    Py_XDECREF(plain);
    return timer;
}

static PyObject *expires(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    Entry wanted = {.asked = {NULL, Py_None, Py_None, Py_None, Py_None, Py_None}};
    PyObject **asked = wanted.asked, *sites = NULL, *code = NULL, *timer;
    int is_ordinary = parse(args, nargs, names, asked);
    if (is_ordinary && asked[CLIENT] == Py_None)
        sites = Py_XNewRef(the.default_sites);
    else if (is_ordinary && (PyObject *)Py_TYPE(asked[CLIENT]) == the.client_type &&
             !(sites = PyObject_GetAttr(asked[CLIENT], the.sites)))
        PyErr_Clear();
    asked[CLIENT] = sites;
    PyFrameObject *frame = sites && asked[SCOPE] == Py_None ? PyEval_GetFrame() : NULL;
    if (frame) {
        asked[SCOPE] = code = (PyObject *)PyFrame_GetCode(frame);
        wanted.instruction = PyFrame_GetLasti(frame);
    }
    const Entry *known = entry_for(&wanted);
    if (known->site && is_same(known, &wanted))
        timer = timer_new(known->site);
    else {
        timer = call_plain(args, nargs, names);
        Site *site = timer && Py_IS_TYPE(timer, the.timer) ? ((Timer *)timer)->site : NULL;
        PyObject *its_sites = site && site->slots ? PyObject_GetAttr(site->slots, the.sites) : NULL;
        if (its_sites && its_sites == sites && asked[SCOPE] != Py_None) /* nobody has changed the client meanwhile */
            remember(wanted, site);
        else if (timer)
            PyErr_Clear();
        Py_XDECREF(its_sites);
    }
    Py_XDECREF(code);
    Py_XDECREF(sites);
    return timer;
}

static PyObject *use(PyObject *Py_UNUSED(self), PyObject *sites) {
    Py_XSETREF(the.default_sites, Py_NewRef(sites));
    Py_RETURN_NONE;
}

static PyMethodDef expires_method = {"expires", (PyCFunction)(void (*)(void))expires, METH_FASTCALL | METH_KEYWORDS, 0};

static PyObject *accelerate(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *plain, *client_type, *text, *name;
    if (!PyArg_ParseTuple(args, "O!OUU:accelerate", &PyFunction_Type, &plain, &client_type, &text, &name) ||
        !(the.plain = PyWeakref_NewRef(plain, NULL)) || !(expires_method.ml_doc = PyUnicode_AsUTF8(text)))
        return NULL;
    the.text = Py_NewRef(text);
    the.client_type = Py_NewRef(client_type);
    return PyCFunction_NewEx(&expires_method, NULL, name);
}

static PyObject *fence(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
    atomic_thread_fence(memory_order_seq_cst);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"accelerate", accelerate, METH_VARARGS, ""}, {"use", use, METH_O, ""}, {"fence", fence, METH_NOARGS, ""}, {0},
};

static PyType_Slot Site_slots[] = {
    {Py_tp_traverse, Site_traverse}, {Py_tp_clear, Site_clear}, {Py_tp_dealloc, collected_dealloc},
    {Py_tp_members, Site_members}, {Py_tp_methods, Site_methods}, {0},
};
static PyType_Slot Slot_slots[] = {
    {Py_tp_traverse, Slot_traverse}, {Py_tp_dealloc, Slot_dealloc},
    {Py_tp_members, Slot_members}, {Py_tp_methods, Slot_methods}, {0},
};
static PyType_Slot Timer_slots[] = {
    {Py_tp_new, Timer_new}, {Py_tp_traverse, Timer_traverse}, {Py_tp_dealloc, Timer_dealloc},
    {Py_tp_methods, Timer_methods}, {Py_tp_members, Timer_members}, {0},
};
static PyType_Slot Heartbeat_slots[] = {
    {Py_tp_traverse, Heartbeat_traverse}, {Py_tp_clear, Heartbeat_clear}, {Py_tp_dealloc, collected_dealloc},
    {Py_tp_methods, Heart_methods}, {Py_tp_members, Heartbeat_members}, {0},
};

#define COLLECTED_FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC)
static struct { const char *base; PyTypeObject **type; PyType_Spec spec; } types[] = {
    {"SiteBase", &the.site, {"unhang._worker._block.Site", sizeof(Site), 0, COLLECTED_FLAGS, Site_slots}},
    {"SlotBase", &the.slot, {"unhang._worker._block.Slot", sizeof(Slot), 0, COLLECTED_FLAGS, Slot_slots}},
    {"TimerBase", &the.timer, {"unhang.Timer", sizeof(Timer), 0, COLLECTED_FLAGS, Timer_slots}},
    {"HeartbeatBase", &the.heartbeat, {"unhang.Heartbeat", sizeof(Heartbeat), 0, COLLECTED_FLAGS, Heartbeat_slots}},
};

static int execute(PyObject *module) {
    if (the.site || PyInterpreterState_Get() != PyInterpreterState_Main())
        return PyErr_Format(PyExc_ImportError, "the extension is for the main interpreter, and loaded once") ? 0 : -1;
    for (int i = 0; i < ASKED; i++)
        if (!(the.arguments[i] = PyUnicode_InternFromString(ARGUMENTS[i])))
            return -1;
    PyObject *layout = Py_BuildValue("{" LAYOUT(FORMAT) "}", LAYOUT(PAIR) NULL);
    PyObject *bases = PyImport_ImportModule("unhang._worker.bases");
    if (!layout || !bases || PyModule_AddObjectRef(module, "LAYOUT", layout) < 0 ||
        !(the.monotonic_ns = PyObject_GetAttrString(bases, "monotonic_ns")) ||
        !(the.warn = PyObject_GetAttrString(bases, "warn_of_dropped_timer")) ||
        !(the.sites = PyUnicode_InternFromString("sites")))
        return -1;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        PyObject *base = PyObject_GetAttrString(bases, types[i].base);
        *types[i].type = base ? (PyTypeObject *)PyType_FromModuleAndSpec(module, &types[i].spec, base) : NULL;
        Py_XDECREF(base);
        if (!*types[i].type || PyModule_AddType(module, *types[i].type) < 0)
            return -1;
    }
    Py_DECREF(layout);
    Py_DECREF(bases);
    return 0;
}

static PyModuleDef_Slot steps[] = {{Py_mod_exec, execute}, {0}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_block", .m_methods = functions, .m_slots = steps};
PyMODINIT_FUNC PyInit__block(void) { return PyModuleDef_Init(&definition); }
