/*
 * blockdev-reopen, as the machine does it: the disk is drained while requests are under way, changes,
 * and goes on; what cannot change says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/block_int.h"
#include "machine/machine_int.h"

struct rig {
	struct machine *m;
	struct blk_node *top;
	struct blk_user *user;
	struct blk_chan *chan;
	char path[64];
	struct blk_req req;
	struct iovec iov;
	char buf[512];
	bool req_done, done;
	char said[512];
};

static void req_done(struct blk_req *req, int result)
{
	struct rig *r = container_of(req, struct rig, req);

	assert_int_equal(result, 0);
	r->req_done = true;
}

static void reopened(void *opaque, const struct err *err)
{
	struct rig *r = opaque;

	r->done = true;
	snprintf(r->said, sizeof(r->said), "%s", err ? err->msg : "");
}

/* An empty image of 1 MiB. */
static void format(const char *path)
{
	struct blk_node *file;
	struct blk_user *user;
	struct opts o = {0};
	struct err err;
	char text[200];

	snprintf(text, sizeof(text), "driver=file,filename=%s", path);
	assert_int_equal(opts_parse(&o, "image", text, NULL, &err), 0);
	assert_int_equal(blk_open(NULL, &o, &file, &err), 0);
	opts_fini(&o);
	assert_int_equal(blk_attach(file, "test", BLK_PERM_WRITE | BLK_PERM_RESIZE, BLK_PERM_ALL,
				    NULL, NULL, &user, &err),
			 0);
	assert_int_equal(opts_parse(&o, "create", "size=1M", NULL, &err), 0);
	assert_int_equal(blk_qcow2_driver.create(NULL, file, &o, &err), 0);
	opts_fini(&o);
	blk_detach(user);
	blk_unref(file);
}

static void start(struct rig *r, const char *driver)
{
	struct opts o = {0};
	struct err err;
	char text[200];
	int fd;

	memset(r, 0, sizeof(*r));
	snprintf(r->path, sizeof(r->path), "/tmp/reopen-XXXXXX");
	fd = mkstemp(r->path);
	assert_true(fd >= 0 && ftruncate(fd, 65536) == 0);
	close(fd);
	if (!strcmp(driver, "qcow2")) {
		format(r->path);
	}
	r->m = calloc(1, sizeof(*r->m));
	assert_int_equal(loop_new(&r->m->vm.loop, "control", 0), 0);
	assert_int_equal(blk_graph_new(&r->m->be.graph), 0);
	snprintf(text, sizeof(text), "driver=%s,node-name=top,file.node-name=f,file.filename=%s",
		 driver, r->path);
	assert_int_equal(opts_parse(&o, "-blockdev", text, NULL, &err), 0);
	assert_int_equal(blk_open(r->m->be.graph, &o, &r->top, &err), 0);
	opts_fini(&o);
	assert_int_equal(blk_attach(r->top, "device", BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
				    BLK_PERM_ALL, NULL, NULL, &r->user, &err),
			 0);
	assert_int_equal(blk_chan_open(r->top, r->m->vm.loop, &r->chan, &err), 0);
	blk_graph_seal(r->m->be.graph);
}

static void stop(struct rig *r)
{
	drives_reopen_cancel(&r->m->be);
	blk_chan_close(r->chan);
	blk_detach(r->user);
	blk_unref(r->top);
	blk_graph_free(r->m->be.graph);
	loop_free(r->m->vm.loop);
	free(r->m);
	unlink(r->path);
}

static void submit(struct rig *r)
{
	r->req_done = false;
	r->iov = (struct iovec){r->buf, sizeof(r->buf)};
	r->req = (struct blk_req){.op = BLK_WRITE,
				  .len = sizeof(r->buf),
				  .iov = &r->iov,
				  .niov = 1,
				  .done = req_done};
	blk_submit(r->chan, &r->req);
}

static int ask(struct rig *r, const char *text, struct err *err)
{
	struct opts o = {0};
	int rc;

	err->msg[0] = '\0';
	r->done = false;
	assert_int_equal(opts_parse(&o, "blockdev-reopen", text, NULL, err), 0);
	rc = machine_block_reopen(r->m, &o, reopened, r, err);
	opts_fini(&o);
	return rc;
}

/* What it says in the end; "" if it went well. */
static const char *reopen(struct rig *r, const char *text, struct err *err)
{
	if (ask(r, text, err)) {
		return err->msg;
	}
	assert_false(r->done); /* not inside */
	while (!r->done) {
		loop_step(r->m->vm.loop, 1000);
	}
	return r->said;
}

static void test_changes(void **state)
{
	struct blk_node *f;
	struct err err;
	struct rig r;

	start(&r, "raw");
	f = blk_find(r.m->be.graph, "f");
	submit(&r);
	assert_string_equal(reopen(&r, "node-name=top,driver=raw,file=f,discard=unmap,"
				   "detect-zeroes=unmap", &err), "");
	assert_true(r.req_done); /* it was under way, and waited for */
	assert_true(r.top->info.can_discard && f->info.can_discard);
	assert_int_equal(r.top->opt.detect_zeroes, BLK_DETECT_UNMAP);
	/* what is not named is at its default */
	assert_string_equal(reopen(&r, "node-name=top,cache.no-flush=on", &err), "");
	assert_false(r.top->info.can_discard || f->info.can_discard || f->info.write_cache);
	assert_int_equal(r.top->opt.detect_zeroes, BLK_DETECT_OFF);
	/* requests that come meanwhile wait, and are done then */
	assert_int_equal(ask(&r, "node-name=top", &err), 0);
	assert_int_equal(ask(&r, "node-name=top", &err), -EBUSY);
	submit(&r);
	while (!r.req_done || !r.done) {
		loop_step(r.m->vm.loop, 1000);
	}
	assert_string_equal(r.said, "");
	assert_true(f->info.write_cache);
	stop(&r);
	(void)state;
}

/* A format's own thread has written to the file, and does so again when its options change. */
static void test_format(void **state)
{
	struct err err;
	struct rig r;

	start(&r, "qcow2");
	for (unsigned i = 0; i < 2; i++) {
		submit(&r);
		while (!r.req_done) {
			loop_step(r.m->vm.loop, 1000);
		}
		assert_string_equal(reopen(&r, "node-name=top,l2-cache-size=4096,lazy-refcounts=on,"
					   "cache.no-flush=on", &err), "");
		assert_string_equal(reopen(&r, "node-name=top,lazy-refcounts=off", &err), "");
	}
	stop(&r);
	(void)state;
}

static void test_refused(void **state)
{
	const struct {
		const char *text, *word;
	} bad[] = {
		{"discard=unmap", "node-name"},
		{"node-name=none", "none"},
		{"node-name=top,driver=qcow2", "driver"},
		{"node-name=top,file=top", "file"},
		{"node-name=top,backing=f", "backing"},
		{"node-name=top,read-only=on", "writes to it"},
		{"node-name=top,offset=512", "offset"},
		{"node-name=top,discard=maybe", "discard"},
		{"node-name=top,force-share=on", "force-share"},
		{"node-name=f", "below node 'top'"},
	};
	struct err err;
	struct rig r;

	start(&r, "raw");
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		const char *said = reopen(&r, bad[i].text, &err);

		if (!strstr(said, bad[i].word)) {
			fail_msg("%s: %s", bad[i].text, said);
		}
		submit(&r); /* it goes on as it was */
		while (!r.req_done) {
			loop_step(r.m->vm.loop, 1000);
		}
	}
	/* to read-only and back without opening a file, which the graph no longer does */
	assert_int_equal(blk_user_set_perm(r.user, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err), 0);
	assert_string_equal(reopen(&r, "node-name=top,read-only=on", &err), "");
	assert_true(r.top->info.read_only);
	assert_string_equal(reopen(&r, "node-name=top", &err), "");
	assert_false(r.top->info.read_only);
	/* the machine ends meanwhile */
	submit(&r);
	assert_int_equal(ask(&r, "node-name=top", &err), 0);
	drives_reopen_cancel(&r.m->be);
	while (!r.req_done) {
		loop_step(r.m->vm.loop, 1000);
	}
	assert_false(r.done);
	stop(&r);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
