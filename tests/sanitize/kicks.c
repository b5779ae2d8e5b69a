/* What kicks.py does where Python would put too many other stores in between. */

#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#define LINE 8 /* words of a cache line */

/* Stores into lines that the other process had last: while they wait for them, so does the store behind them. */
static void burst(_Atomic int64_t *words, int64_t lines) {
    for (int64_t i = 0; i < lines; i++)
        atomic_store_explicit(&words[i * LINE], i, memory_order_relaxed);
}

/* The watchdog: it stores `wake`, loads the deadline, and returns whether that is armed. */
int look(_Atomic int64_t *wake, int64_t late, _Atomic int64_t *deadline, int64_t fenced, _Atomic int64_t *words,
         int64_t lines) {
    burst(words, lines);
    atomic_store_explicit(wake, late, memory_order_relaxed);
    if (fenced)
        atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(deadline, memory_order_relaxed) < INT64_C(1) << 62;
}

_Atomic int64_t *clock_words;
int64_t clock_lines;

/* The clock of the worker, which it reads right before it stores the deadline. */
int64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    burst(clock_words, clock_lines);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}
