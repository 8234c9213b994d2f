/* What a forbidden system call does in a released build: it ends the process, and the kernel
 * writes an audit line with the number of the call and the name of the thread. */
#include <linux/seccomp.h>

#include "sandbox/sandbox_int.h"

uint32_t sandbox_forbidden_action(void)
{
	return SECCOMP_RET_KILL_PROCESS;
}
