/* What a forbidden system call does with -Dtest_hooks=true: it fails with EPERM, so that a test
 * can attempt every one of them in a thread. */
#include <errno.h>
#include <linux/seccomp.h>

#include "sandbox/sandbox_int.h"

uint32_t sandbox_forbidden_action(void)
{
	return SECCOMP_RET_ERRNO | EPERM;
}
