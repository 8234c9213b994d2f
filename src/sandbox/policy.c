/*
 * The broker's policy: the rules, and what is done for a request that names one.
 *
 * Invariants
 *  1. A rule never changes after the seal, but for `present` of what was created.
 *  2. `real` and `dir` have no symbolic link, "." or ".." when they are made; every later use
 *     goes through openat2(RESOLVE_NO_SYMLINKS), so one that has crept in since is an error.
 *  3. What is handed out is a regular file, a block device, a character device or a connected
 *     socket: never a directory, from which more could be reached.
 *  4. Nothing here blocks on what another process does: files are opened and sockets are
 *     connected without waiting (a dead network file system still can block, as it can anyone).
 *
 * Untrusted: after the seal, the requests (verb, rule, flags), and all the time whoever may
 * write to the directories that the rules are in.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "sandbox/sandbox_int.h"
#include "spec/landlock.h"

_Static_assert(BROKER_PATH_MAX == PATH_MAX, "a path of the policy is a path of the kernel");

/* --- making rules, before the seal --- */

static void rule_fini(struct broker_rule *r)
{
	free(r->text);
	free(r->dir);
	free(r->real);
	*r = (struct broker_rule){0};
}

/* "/a/b" is "/a" and "b"; "/b" is "/" and "b". Returns where b begins, NULL if there is no last
 * component that names a file. path is absolute; *dir is allocated. */
static const char *path_split(const char *path, char **dir)
{
	const char *slash = strrchr(path, '/'), *base = slash + 1;

	if (*base == '\0' || strcmp(base, ".") == 0 || strcmp(base, "..") == 0) {
		return NULL;
	}
	*dir = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	return *dir ? base : NULL;
}

/* #syscalls(start): readlink newfstatat getcwd */
static int rule_resolve(struct broker_rule *r, struct err *err)
{
	char *dir = NULL, *whole = NULL;
	const char *base = path_split(r->text, &dir);
	int ret = 0;

	if (!base) {
		return err_set(err, EINVAL, "%s: names a directory, a file is needed", r->text);
	}
	/* What was created is itself meant, not what a link leads to. */
	if (r->verb != BROKER_UNLINK) {
		whole = realpath(r->text, NULL);
	}
	if (whole) {
		r->real = whole;
		free(dir);
		dir = NULL;
		if (!path_split(whole, &dir)) {
			ret = err_set(err, EISDIR, "%s: is a directory, a file is needed", r->text);
			goto free_dir;
		}
		r->dir = strdup(dir);
	} else {
		r->dir = realpath(dir, NULL);
		if (!r->dir) {
			ret = err_set(err, errno, "%s: its directory cannot be found: %s",
				      r->text, strerror(errno));
			goto free_dir;
		}
		if (asprintf(&r->real, "%s/%s", strcmp(r->dir, "/") == 0 ? "" : r->dir, base) <
		    0) {
			r->real = NULL;
		}
	}
	if (!r->dir || !r->real) {
		ret = err_set(err, ENOMEM, "%s: no memory for a rule of the broker", r->text);
		goto free_dir;
	}
	r->base = strrchr(r->real, '/') + 1;
free_dir:
	free(dir);
	return ret;
}

/* Remembers the inode that was just made. #syscalls(start): newfstatat geteuid */
static int rule_created(struct broker_rule *r, struct err *err)
{
	bool right_kind;
	struct stat st;

	if (lstat(r->real, &st) < 0) {
		return err_set(err, errno, "%s: %s", r->text, strerror(errno));
	}
	right_kind = r->kind == BROKER_SOCKET ? S_ISSOCK(st.st_mode) : S_ISREG(st.st_mode);
	if (!right_kind || st.st_uid != geteuid()) {
		return err_set(err, EACCES, "%s: is not a %s of this user", r->text,
			       r->kind == BROKER_SOCKET ? "socket" : "regular file");
	}
	r->dev = st.st_dev;
	r->ino = st.st_ino;
	r->present = true;
	return 0;
}

static int rule_init(struct broker_rule *r, const struct broker_setup *m, struct err *err)
{
	static const uint32_t serves[] = {
		[BROKER_ALLOW_OPEN] = BROKER_OPEN,
		[BROKER_ALLOW_CONNECT] = BROKER_CONNECT,
		[BROKER_CREATED] = BROKER_UNLINK,
	};
	int ret;

	r->verb = serves[m->verb];
	r->writable = m->verb == BROKER_ALLOW_OPEN && m->arg;
	r->kind = m->arg == BROKER_REGULAR ? BROKER_REGULAR : BROKER_SOCKET;
	r->text = strdup(m->path);
	if (!r->text) {
		return err_set(err, ENOMEM, "%s: no memory for a rule of the broker", m->path);
	}
	ret = rule_resolve(r, err);
	if (ret == 0 && m->verb == BROKER_CREATED) {
		ret = rule_created(r, err);
	}
	return ret;
}

int policy_setup(struct policy *p, const struct broker_setup *m, struct err *err)
{
	struct broker_rule rule = {0};
	unsigned i;
	int ret;

	if (p->sealed) {
		return err_set(err, EPERM, "the broker's policy is sealed");
	}
	if (m->verb < BROKER_ALLOW_OPEN || m->verb > BROKER_CREATED || m->zero != 0 ||
	    m->arg > 1 || m->path[0] != '/' || !memchr(m->path, '\0', sizeof(m->path))) {
		return err_set(err, EINVAL, "the broker does not understand this rule");
	}
	ret = rule_init(&rule, m, err);
	if (ret < 0) {
		goto fini_rule;
	}
	for (i = 0; i < p->count; i++) {
		if (p->rule[i].verb == rule.verb && strcmp(p->rule[i].text, rule.text) == 0) {
			break;
		}
	}
	if (i == BROKER_RULES_MAX) {
		ret = err_set(err, ENOSPC, "%s: the broker has %d rules already", rule.text,
			      BROKER_RULES_MAX);
		goto fini_rule;
	}
	if (i == p->count) {
		p->count++;
	} else {
		rule.writable |= p->rule[i].writable;
		rule_fini(&p->rule[i]);
	}
	p->rule[i] = rule;
	return (int)i;
fini_rule:
	rule_fini(&rule);
	return ret;
}

size_t policy_landlock(const struct policy *p, struct landlock_path *out)
{
	for (unsigned i = 0; i < p->count; i++) {
		const struct broker_rule *r = &p->rule[i];

		/* The rights to truncate a file and to use a device's ioctls stay with the
		 * descriptor that is handed out. */
		out[i] = (struct landlock_path){
			.path = r->dir,
			.access = r->verb == BROKER_UNLINK ? LANDLOCK_ACCESS_FS_REMOVE_FILE :
				  r->verb == BROKER_CONNECT ? 0 :
				  LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_IOCTL_DEV |
				  (r->writable ? LANDLOCK_ACCESS_FS_WRITE_FILE |
						 LANDLOCK_ACCESS_FS_TRUNCATE : 0),
		};
	}
	return p->count;
}

/* --- requests --- */

/* #syscalls(broker): openat2 */
static int open_resolved(const char *path, uint64_t flags)
{
	struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
	int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

/* Does the text of the command line still lead to the file that was opened?
 * #syscalls(broker): newfstatat */
static bool rule_still_leads_to(const struct broker_rule *r, const struct stat *opened)
{
	struct stat st;

	return strcmp(r->text, r->real) == 0 ||
	       (stat(r->text, &st) == 0 && st.st_dev == opened->st_dev &&
		st.st_ino == opened->st_ino);
}

static int refuse_open(const struct broker_rule *r, int errnum, struct err *err)
{
	if (errnum == ELOOP) {
		return err_set(err, EACCES, "%s: a symbolic link has appeared in it since the "
			       "start", r->text);
	}
	return err_set(err, errnum, "%s: %s", r->text, strerror(errnum));
}

static int refuse_redirected(const struct broker_rule *r, struct err *err)
{
	return err_set(err, EACCES, "%s: leads to another file than at the start", r->text);
}

/* #syscalls(broker): fstat fcntl close */
static int policy_open(const struct broker_rule *r, unsigned flags, int *fd, struct err *err)
{
	bool direct = flags & BROKER_DIRECT, rdwr = flags & BROKER_RDWR;
	struct stat st;
	int ret, n;

	if (flags & ~(unsigned)(BROKER_RDWR | BROKER_DIRECT)) {
		return err_set(err, EINVAL, "%s: unknown flags %#x", r->text, flags);
	}
	if (rdwr && !r->writable) {
		return err_set(err, EACCES, "%s: the policy permits reading only", r->text);
	}
	/* O_NONBLOCK: a FIFO in the file's place must not stop the broker. */
	n = open_resolved(r->real, (uint64_t)((rdwr ? O_RDWR : O_RDONLY) |
					      (direct ? O_DIRECT : 0) | O_NONBLOCK | O_NOCTTY));
	if (n < 0) {
		return refuse_open(r, -n, err);
	}
	if (fstat(n, &st) < 0 || fcntl(n, F_SETFL, direct ? O_DIRECT : 0) < 0) {
		ret = err_set(err, errno, "%s: %s", r->text, strerror(errno));
		goto close_n;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode) && !S_ISCHR(st.st_mode)) {
		ret = err_set(err, EACCES, "%s: is neither a regular file nor a device", r->text);
		goto close_n;
	}
	if (!rule_still_leads_to(r, &st)) {
		ret = refuse_redirected(r, err);
		goto close_n;
	}
	*fd = n;
	return 0;
close_n:
	close(n);
	return ret;
}

/*
 * The socket is looked up without links first and then connected to through its descriptor,
 * which also takes paths that are longer than sun_path.
 * #syscalls(broker): socket connect fstat close
 */
static int policy_connect(const struct broker_rule *r, int *fd, struct err *err)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct stat st;
	int ret, n, file = open_resolved(r->real, O_PATH);

	if (file < 0) {
		return refuse_open(r, -file, err);
	}
	if (fstat(file, &st) < 0 || !S_ISSOCK(st.st_mode)) {
		ret = err_set(err, EACCES, "%s: is not a socket", r->text);
		goto close_file;
	}
	if (!rule_still_leads_to(r, &st)) {
		ret = refuse_redirected(r, err);
		goto close_file;
	}
	n = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (n < 0) {
		ret = err_set(err, errno, "%s: no socket: %s", r->text, strerror(errno));
		goto close_file;
	}
	snprintf(to.sun_path, sizeof(to.sun_path), "/proc/self/fd/%d", file);
	if (connect(n, (const struct sockaddr *)&to, sizeof(to)) < 0) {
		ret = err_set(err, errno, "%s: cannot be connected to: %s", r->text,
			      strerror(errno));
		close(n);
		goto close_file;
	}
	*fd = n;
	ret = 0;
close_file:
	close(file);
	return ret;
}

/* #syscalls(broker): newfstatat unlinkat close */
static int policy_unlink(struct broker_rule *r, struct err *err)
{
	struct stat st;
	int ret = 0, dir;

	if (!r->present) {
		return 0;
	}
	dir = open_resolved(r->dir, O_PATH | O_DIRECTORY);
	if (dir < 0) {
		return refuse_open(r, -dir, err);
	}
	/* Another inode: somebody else has taken the name over, and it is theirs. */
	if (fstatat(dir, r->base, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_dev == r->dev &&
	    st.st_ino == r->ino && unlinkat(dir, r->base, 0) < 0 && errno != ENOENT) {
		ret = err_set(err, errno, "%s: cannot be removed: %s", r->text, strerror(errno));
	}
	r->present = ret < 0;
	close(dir);
	return ret;
}

int policy_request(struct policy *p, const struct broker_request *m, int *fd, struct err *err)
{
	struct broker_rule *r;

	if (m->verb != BROKER_OPEN && m->verb != BROKER_CONNECT && m->verb != BROKER_UNLINK) {
		return err_set(err, EACCES, "the broker knows no request %u", m->verb);
	}
	if (m->rule >= p->count || p->rule[m->rule].verb != m->verb) {
		return err_set(err, EACCES, "the broker's policy has no such rule");
	}
	r = &p->rule[m->rule];
	switch (m->verb) {
	case BROKER_OPEN:
		return policy_open(r, m->flags, fd, err);
	case BROKER_CONNECT:
		return policy_connect(r, fd, err);
	default:
		return policy_unlink(r, err);
	}
}

void policy_cleanup(struct policy *p)
{
	for (unsigned i = 0; i < p->count; i++) {
		struct err err;

		if (p->rule[i].verb == BROKER_UNLINK && policy_unlink(&p->rule[i], &err) < 0) {
			log_warn("broker", "%s", err.msg);
		}
	}
}
