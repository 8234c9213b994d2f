/*
 * The addresses of character back ends and of QMP: -chardev, -serial and -qmp as text, up to the
 * system calls, which are answered here and open nothing (tests/fuzz/meson.build wraps them). The
 * first byte chooses the form. Either there is a back end, or a sentence, and no descriptor is left.
 *
 * #covers: src/chardev/open.c src/control/qmp.c
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "chardev/chr.h"
#include "control/qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_posix_openpt(int flags);
int __wrap_bind(int fd, const struct sockaddr *sa, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *sa, socklen_t len);
int __wrap_listen(int fd, int backlog);
int __wrap_unlink(const char *path);
int __wrap_lstat(const char *path, struct stat *st);
int __wrap_lstat64(const char *path, struct stat *st);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
		       struct addrinfo **out);

/* Every other name is there. */
int __wrap_open(const char *path, int flags, ...)
{
	if (strlen(path) % 2) {
		errno = ENOENT;
		return -1;
	}
	return memfd_create("fuzz", MFD_CLOEXEC);
}

int __wrap_open64(const char *path, int flags, ...)
{
	return __wrap_open(path, flags);
}

int __wrap_posix_openpt(int flags)
{
	errno = ENXIO;
	return -1;
}

int __wrap_bind(int fd, const struct sockaddr *sa, socklen_t len)
{
	/* what is bound is inside the structure */
	uint8_t sum = 0;

	assert(len <= sizeof(struct sockaddr_storage));
	for (socklen_t i = 0; i < len; i++) {
		sum = (uint8_t)(sum + ((const uint8_t *)sa)[i]);
	}
	errno = EADDRINUSE;
	return sum % 4 ? 0 : -1;
}

int __wrap_connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	errno = ECONNREFUSED;
	return -1;
}

int __wrap_listen(int fd, int backlog)
{
	return 0;
}

int __wrap_unlink(const char *path)
{
	errno = ENOENT;
	return -1;
}

int __wrap_lstat(const char *path, struct stat *st)
{
	errno = ENOENT;
	return -1;
}

int __wrap_lstat64(const char *path, struct stat *st)
{
	return __wrap_lstat(path, st);
}

int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
		       struct addrinfo **out);

/* No name server is asked. */
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
		       struct addrinfo **out)
{
	struct addrinfo h = *hints;

	h.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
	return __real_getaddrinfo(host, port, &h, out);
}

static unsigned descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert(d);
	while (readdir(d)) {
		n++;
	}
	closedir(d);
	return n;
}

static void chardev(struct loop *l, const char *text, bool legacy)
{
	struct err err = {0};
	struct chr *c = NULL;
	struct opts o;
	char where[256];
	int ret;

	if (legacy) {
		ret = chr_open_legacy(l, "serial0", text, &c, &err);
	} else {
		ret = opts_parse(&o, "-chardev", text, "backend", &err);
		if (!ret) {
			ret = chr_open(l, &o, &c, &err);
			opts_fini(&o);
		}
	}
	if (ret) {
		assert(ret < 0 && err.msg[0] && !c);
		return;
	}
	chr_describe(c, where, sizeof(where));
	assert(memchr(where, 0, sizeof(where)));
	chr_close(c);
}

static void qmp(struct loop *l, char *text)
{
	struct vm_config cfg = {.qmp = &text, .nqmp = 1};
	struct err err = {0};
	struct qmp_server *s = NULL;
	int ret = qmp_new(l, &cfg, &s, &err);

	assert(ret == 0 ? s != NULL : err.msg[0]);
	if (!ret) {
		qmp_waits(s);
		qmp_socket_path(s, 0);
		qmp_free(s);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned before = descriptors();
	struct loop *l;
	char *text;
	int ret;

	if (!size) {
		return 0;
	}
	ret = loop_new(&l, "fuzz", LOOP_VIRTUAL);
	assert(ret == 0);
	log_set_level(LOG_ERR);
	text = strndup((const char *)data + 1, size - 1);
	assert(text);
	/* those are the terminal of whoever fuzzes */
	if (!strstr(text, "stdio")) {
		if (data[0] == 'q') {
			qmp(l, text);
		} else {
			chardev(l, text, data[0] == 's');
		}
	}
	free(text);
	loop_free(l);
	assert(descriptors() == before);
	return 0;
}
