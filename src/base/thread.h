/*
 * Threads: what all of ours have in common.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include "base/util.h"

/* Their stacks. Not libc's 8 MiB: that much may get a huge page, 2 MiB of memory that nobody
 * asked for and that has to be cleared first. One size, so that libc uses the stack of a thread that
 * has ended for the next. */
#define THREAD_STACK (512 * KiB)

#endif
