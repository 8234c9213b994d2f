/*
 * Shared by the tests of block/: see blkrig.h.
 */
#include "blkrig.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int use(struct blkrig *r)
{
	int rc;

	blk_info(r->node, &r->info);
	rc = blk_attach(r->node, "the test",
			BLK_PERM_CONSISTENT_READ | (r->info.read_only ? 0 : BLK_PERM_WRITE),
			BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE,
			NULL, NULL, &r->user, &r->err);
	if (rc) {
		return rc;
	}
	rc = loop_new(&r->loop, "block", 0);
	assert(rc == 0);
	rc = blk_chan_open(r->node, r->loop, &r->chan, &r->err);
	if (rc < 0) {
		fprintf(stderr, "%s\n", r->err.msg);
		abort();
	}
	return 0;
}

int blkrig_open(struct blkrig *r, const char *text)
{
	struct opts o;
	int rc;

	memset(r, 0, sizeof(*r));
	rc = blk_graph_new(&r->graph);
	assert(rc == 0);
	rc = opts_parse(&o, "-blockdev", text, NULL, &r->err);
	assert(rc == 0);
	rc = blk_open(r->graph, &o, &r->node, &r->err);
	opts_fini(&o);
	if (!rc) {
		rc = use(r);
	}
	if (rc < 0) {
		blk_unref(r->node);
		blk_graph_free(r->graph);
	}
	return rc;
}

void blkrig_node(struct blkrig *r, struct blk_node *node)
{
	int rc;

	memset(r, 0, sizeof(*r));
	r->node = node;
	rc = use(r);
	assert(rc == 0);
}

void blkrig_close(struct blkrig *r)
{
	blk_chan_close(r->chan);
	blk_detach(r->user);
	blk_unref(r->node);
	blk_graph_free(r->graph);
	loop_free(r->loop);
}

static void req_done(struct blk_req *req, int result)
{
	struct blkreq *q = req->opaque;

	assert(!q->done);
	q->done = true;
	q->result = result;
}

static void req_submit(struct blkrig *r, struct blkreq *q, enum blk_op op, unsigned flags,
		       uint64_t off, uint64_t len, unsigned n)
{
	q->done = false;
	q->req = (struct blk_req){
		.op = op,
		.flags = flags,
		.off = off,
		.len = len,
		.iov = n ? q->iov : NULL,
		.niov = n,
		.done = req_done,
		.opaque = q,
	};
	blk_submit(r->chan, &q->req);
	assert(!q->done); /* never inside */
}

void blkrig_submit(struct blkrig *r, struct blkreq *q, enum blk_op op, unsigned flags,
		   uint64_t off, uint64_t len, void *buf)
{
	q->iov[0] = (struct iovec){buf, len};
	req_submit(r, q, op, flags, off, len, buf ? 1 : 0);
}

void blkrig_submit_iov(struct blkrig *r, struct blkreq *q, enum blk_op op, unsigned flags,
		       uint64_t off, unsigned n)
{
	req_submit(r, q, op, flags, off, iov_len(q->iov, n), n);
}

int blkrig_wait(struct blkrig *r, struct blkreq *q)
{
	uint64_t since = now_ns();

	while (!q->done) {
		assert(now_ns() - since < UINT64_C(10000000000));
		loop_step(r->loop, 100);
	}
	return q->result;
}

int blkrig_do(struct blkrig *r, enum blk_op op, unsigned flags, uint64_t off, uint64_t len,
	      void *buf)
{
	struct blkreq q;

	blkrig_submit(r, &q, op, flags, off, len, buf);
	return blkrig_wait(r, &q);
}

char *blkrig_file(const char *dir, uint64_t size)
{
	const char *tmp = getenv("TMPDIR");
	uint64_t words[512];
	char *path;
	int fd, rc;

	rc = asprintf(&path, "%s/nemu-blk-XXXXXX", dir ? dir : tmp ? tmp : "/tmp");
	assert(rc > 0);
	fd = mkstemp(path);
	assert(fd >= 0);
	for (uint64_t off = 0; off < size; off += sizeof(words)) {
		uint64_t n = MIN(sizeof(words), size - off);
		ssize_t done;

		for (unsigned i = 0; i < 512; i++) {
			words[i] = off + 8 * i;
		}
		done = pwrite(fd, words, n, (off_t)off);
		assert(done == (ssize_t)n);
	}
	close(fd);
	return path;
}
