/*
 * What -cpu knows, for messages and queries: one of each for every architecture.
 */
#ifndef ARCH_CPU_H
#define ARCH_CPU_H

/* The i-th model, with a line about it, and the i-th feature; NULL past the end. */
const char *arch_cpu_model(unsigned i, const char **doc);
const char *arch_cpu_feature(unsigned i);

#endif
