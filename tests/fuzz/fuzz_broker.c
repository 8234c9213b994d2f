/*
 * The broker after the seal: messages of any length and content from a VM process that has been
 * taken over. Rules never change, a descriptor comes only for a rule that is there, no descriptor
 * stays open, and at the end the broker still serves.
 *
 * Input: a length byte, then so many bytes of a message (the magic is put in front of most), and so
 * on. The process itself is not confined, so it is the policy alone that is tested here.
 *
 * #covers: src/sandbox/server.c src/sandbox/policy.c
 */
#include "sandbox/server.c" /* in place of the library's: its functions are static */

#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>

#define RULES 5

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[32];

static void rule(struct policy *p, uint32_t verb, uint32_t arg, const char *name)
{
	struct broker_setup m = {.magic = BROKER_MAGIC, .verb = verb, .arg = arg};
	struct err err;
	int r;

	snprintf(m.path, sizeof(m.path), "%s/%s", dir, name);
	r = policy_setup(p, &m, &err);
	assert(r >= 0);
}

static void file(const char *name)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert(f);
	fclose(f);
}

static void remove_all(void)
{
	static const char *const names[] = {"disk", "iso", "made", "nothing"};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		char path[64];

		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	rmdir(dir);
}

/* A disk, a read-only one, one that is not there, a socket that nobody serves, what was made. */
static void rules(struct policy *p)
{
	if (!dir[0]) {
		strcpy(dir, "/tmp/nemu-fuzz-XXXXXX");
		assert(mkdtemp(dir));
		atexit(remove_all);
	}
	file("disk");
	file("iso");
	file("made");
	rule(p, BROKER_ALLOW_OPEN, 1, "disk");
	rule(p, BROKER_ALLOW_OPEN, 0, "iso");
	rule(p, BROKER_ALLOW_OPEN, 1, "nothing");
	rule(p, BROKER_ALLOW_CONNECT, 0, "iso");
	rule(p, BROKER_CREATED, BROKER_REGULAR, "made");
	assert(p->count == RULES);
	p->sealed = true;
}

/* The answer: its result; a descriptor is closed, *got says that there was one. */
static int reply(int sock, bool *got, bool *writable)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct broker_reply r;
	struct iovec iov = {&r, sizeof(r)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.buf,
			   .msg_controllen = sizeof(control.buf)};
	ssize_t n = recvmsg(sock, &m, MSG_DONTWAIT);

	assert(n == sizeof(r) && r.magic == BROKER_MAGIC);
	assert(memchr(r.text, 0, sizeof(r.text)));
	assert(r.result >= 0 || r.text[0]);
	*got = CMSG_FIRSTHDR(&m) != NULL;
	*writable = false;
	if (*got) {
		int fd;

		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
		*writable = (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
		close(fd);
	}
	return r.result;
}

static void message(struct server *s, int peer, const void *buf, size_t len)
{
	struct broker_request rq = {0};
	bool got, writable, alive;

	if (send(peer, buf, len, MSG_DONTWAIT) != (ssize_t)len) {
		return;
	}
	s->tokens = RATE_BURST; /* no sleep here */
	alive = server_message(s);
	assert(alive && s->policy.sealed && s->policy.count == RULES);
	memcpy(&rq, buf, MIN(len, sizeof(rq)));
	reply(peer, &got, &writable);
	if (got) {
		assert(len == sizeof(rq) && rq.verb == BROKER_OPEN && rq.rule < RULES);
		assert(!writable || (rq.flags & BROKER_RDWR && rq.rule != 1));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct broker_request good = {BROKER_MAGIC, BROKER_OPEN, 0, BROKER_RDWR};
	struct server *s = calloc(1, sizeof(*s));
	uint8_t buf[sizeof(struct broker_setup) + 64];
	int sv[2], rc = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv);

	assert(s && rc == 0);
	log_set_level(LOG_ERR);
	s->sock = sv[0];
	s->tokens_ns = now_ns();
	rules(&s->policy);
	while (size) {
		uint32_t magic = BROKER_MAGIC;
		size_t n = MIN(data[0], size - 1);
		size_t len = data[0] == 0xff ? sizeof(struct broker_setup) : data[0];

		memset(buf, 0, sizeof(buf));
		memcpy(buf, data + 1, n);
		if (n && data[1] % 8) {
			memcpy(buf, &magic, sizeof(magic));
		}
		if (len) { /* an empty one ends the broker, as it is meant to */
			message(s, sv[1], buf, len);
		}
		data += n + 1;
		size -= n + 1;
	}
	message(s, sv[1], &good, sizeof(good));
	policy_cleanup(&s->policy);
	for (unsigned i = 0; i < s->policy.count; i++) {
		free(s->policy.rule[i].text);
		free(s->policy.rule[i].dir);
		free(s->policy.rule[i].real);
	}
	close(sv[0]);
	close(sv[1]);
	free(s);
	return 0;
}
