/* A released build attempts nothing: see hooks_probe.c. */
#include "sandbox/sandbox_int.h"

void sandbox_hook_narrowed(unsigned table)
{
}
