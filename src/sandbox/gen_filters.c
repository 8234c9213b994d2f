/*
 * Compiles the tables of tools/gen-syscalls to seccomp filters, at build time, for the architecture
 * that NEMU is built for: gen-filters x86_64 > filters.c. Calls go by their names, because libseccomp
 * wants this machine's numbers and makes those of the filter's architecture from them.
 *
 * libseccomp does it here and is no library of the program, which then has nothing to compile when
 * it starts. Each program is sorted as a binary tree. The kernel itself caches which calls
 * are permitted whatever their arguments are (since 5.11), so that reads and writes do not run
 * the program at all; ioctl does, about 20 comparisons.
 *
 * Calls with rules for their arguments, whatever the comments say:
 *   mmap, mprotect    never PROT_EXEC
 *   ioctl             only the requests of the table. The kernel takes the low 32 bits, so
 *                     only these are compared
 *   clone             only threads; libc falls back to it because
 *   clone3            answers ENOSYS: its flags are in memory, where a filter cannot look
 *   kill, tgkill      only this process: SANDBOX_OWN_PID, which src/sandbox/filter.c replaces
 *   prctl             only PR_SET_NAME
 *   seccomp           only to add a filter
 *   socket            (broker) only AF_UNIX
 */
#include <errno.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "sandbox/sandbox_int.h"

#define LOW_32 UINT64_C(0xffffffff)

/* One comparison of one argument. */
struct arg_rule {
	int nr;
	unsigned arg;
	uint64_t mask, value;
};

static const struct arg_rule arg_rules[] = {
	{SCMP_SYS(mmap), 2, PROT_EXEC, 0},
	{SCMP_SYS(mprotect), 2, PROT_EXEC, 0},
	{SCMP_SYS(clone), 0, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND,
	 CLONE_VM | CLONE_THREAD | CLONE_SIGHAND},
	{SCMP_SYS(kill), 0, LOW_32, SANDBOX_OWN_PID},
	{SCMP_SYS(tgkill), 0, LOW_32, SANDBOX_OWN_PID},
	{SCMP_SYS(prctl), 0, LOW_32, PR_SET_NAME},
	{SCMP_SYS(seccomp), 0, LOW_32, SECCOMP_SET_MODE_FILTER},
	{SCMP_SYS(socket), 0, LOW_32, AF_UNIX},
};

static const struct arg_rule *filter_arg_rule(int nr)
{
	for (size_t i = 0; i < ARRAY_SIZE(arg_rules); i++) {
		if (arg_rules[i].nr == nr) {
			return &arg_rules[i];
		}
	}
	return NULL;
}

static int filter_add_masked(scmp_filter_ctx ctx, int nr, unsigned arg, uint64_t mask,
			     uint64_t value)
{
	const struct scmp_arg_cmp cmp = SCMP_CMP64(arg, SCMP_CMP_MASKED_EQ, mask, value);

	return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, nr, 1, &cmp);
}

static int filter_add_call(scmp_filter_ctx ctx, const struct sandbox_table *t, int nr)
{
	const struct arg_rule *rule;

	if (nr == SCMP_SYS(clone3)) {
		return seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(ENOSYS), nr, 0, NULL);
	}
	if (nr == SCMP_SYS(ioctl)) {
		for (size_t i = 0; i < t->nioctl; i++) {
			int r = filter_add_masked(ctx, nr, 1, LOW_32,
						  t->ioctl[i].request & LOW_32);

			/* Two names of one request. */
			if (r < 0 && r != -EEXIST) {
				return r;
			}
		}
		return 0;
	}
	rule = filter_arg_rule(nr);
	if (rule) {
		return filter_add_masked(ctx, nr, rule->arg, rule->mask, rule->value);
	}
	return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, nr, 0, NULL);
}

static int filter_fill(scmp_filter_ctx ctx, uint32_t arch, const struct sandbox_table *t)
{
	int r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);

	if (r == 0 && arch != seccomp_arch_native()) {
		r = seccomp_arch_remove(ctx, seccomp_arch_native());
		r = r ? r : seccomp_arch_add(ctx, arch);
	}
	if (r < 0) {
		return r;
	}
	/* 2: a binary tree. A libseccomp older than 2.5 refuses that and makes a chain. */
	(void)seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	for (size_t i = 0; i < t->ncall; i++) {
		int nr = seccomp_syscall_resolve_name(t->call[i].name);

		if (seccomp_syscall_resolve_name_arch(arch, t->call[i].name) < 0) {
			continue; /* that architecture does not have it */
		}
		r = filter_add_call(ctx, t, nr);
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

/* The program, in malloc'ed memory: how many instructions, or -errno. */
static ssize_t filter_compile(uint32_t arch, const struct sandbox_table *t,
			      struct sock_filter **out)
{
	scmp_filter_ctx ctx = seccomp_init(sandbox_forbidden_action());
	FILE *file = tmpfile();
	ssize_t n = -ENOMEM;

	if (!ctx || !file) {
		return n;
	}
	n = filter_fill(ctx, arch, t);
	n = n ? n : seccomp_export_bpf(ctx, fileno(file));
	if (!n && !fseek(file, 0, SEEK_END)) {
		n = ftell(file) / (ssize_t)sizeof(**out);
		*out = calloc((size_t)n, sizeof(**out));
		rewind(file);
		if (!*out || fread(*out, sizeof(**out), (size_t)n, file) != (size_t)n) {
			n = -EIO;
		}
	}
	fclose(file);
	seccomp_release(ctx);
	return n;
}

static int filter_print(uint32_t arch, const struct sandbox_table *t)
{
	struct sock_filter *f = NULL;
	ssize_t n = filter_compile(arch, t, &f);

	if (n <= 0) {
		fprintf(stderr, "gen-filters: %s: %s\n", t->name, strerror((int)-n));
		free(f);
		return 1;
	}
	printf("static const struct sock_filter %s_filter[] = {\n", t->name);
	for (ssize_t i = 0; i < n; i++) {
		printf("\t{%#x, %u, %u, %#x},\n", f[i].code, f[i].jt, f[i].jf, f[i].k);
	}
	printf("};\n\n");
	free(f);
	return 0;
}

int main(int argc, char **argv)
{
	uint32_t arch = argc == 2 ? seccomp_arch_resolve_name(argv[1]) : 0;
	int ret = 0;

	if (!arch) {
		fprintf(stderr, "usage: gen-filters ARCHITECTURE (a name that libseccomp knows)\n");
		return 2;
	}

	printf("/* Made by src/sandbox/gen_filters.c; do not edit. */\n"
	       "#include \"sandbox/sandbox_int.h\"\n\n");
	for (unsigned i = 0; i < SANDBOX_TABLES; i++) {
		ret |= filter_print(arch, &sandbox_tables[i]);
	}
	printf("const struct sandbox_filter sandbox_filters[SANDBOX_TABLES] = {\n");
	for (unsigned i = 0; i < SANDBOX_TABLES; i++) {
		const char *name = sandbox_tables[i].name;

		printf("\t{%s_filter, sizeof(%s_filter) / sizeof(%s_filter[0])},\n", name, name, name);
	}
	printf("};\n");
	return ret;
}
