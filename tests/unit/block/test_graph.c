/*
 * The graph: children, names, permissions through nodes, windows of driver=raw, requests that
 * fit no call, drain, resize, changed options.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/io.h"
#include "blkrig.h"

#define SIZE	   (1 * MiB)
#define READ_WRITE (BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE)
#define NO_WRITER  (BLK_PERM_ALL & ~BLK_PERM_WRITE)

/* Opens "fmt" with the path in place of its %s. */
static int node_open(struct blk_graph *g, const char *before, const char *path,
		     const char *after, struct blk_node **out, struct err *err)
{
	char text[600];
	struct opts o;
	int rc;

	snprintf(text, sizeof(text), "%s%s%s", before, path, after);
	rc = opts_parse(&o, "-blockdev", text, NULL, err);
	assert_int_equal(rc, 0);
	*out = NULL;
	rc = blk_open(g, &o, out, err);
	opts_fini(&o);
	return rc;
}

static bool locked(const char *path, off_t byte)
{
	struct flock fl = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_OFD_GETLK, &fl), 0);
	close(fd);
	return fl.l_type != F_UNLCK;
}

static void test_children(void **state)
{
	char *path = blkrig_file(NULL, SIZE);
	struct blk_node *f, *raw, *other;
	struct blk_graph *g;
	struct err err;

	assert_int_equal(blk_graph_new(&g), 0);
	assert_int_equal(node_open(g, "driver=file,node-name=f0,filename=", path, "", &f, &err),
			 0);
	assert_ptr_equal(blk_find(g, "f0"), f);
	assert_int_equal(node_open(g, "driver=raw,node-name=r0,file=f0", "", "", &raw, &err),
			 0);
	assert_ptr_equal(blk_child(raw, "file"), f);
	assert_string_equal(blk_filename(raw), path);
	assert_string_equal(blk_driver_name(raw), "raw");
	/* names are taken once, in a child, too */
	assert_int_equal(node_open(g, "driver=null-co,node-name=r0", "", "", &other, &err),
			 -EEXIST);
	assert_non_null(strstr(err.msg, "r0"));
	assert_int_equal(node_open(g, "driver=raw,node-name=x,file.node-name=f0,file.filename=",
				   path, "", &other, &err),
			 -EEXIST);
	assert_int_equal(node_open(g, "driver=raw,node-name=x,file.node-name=x,file.filename=",
				   path, "", &other, &err),
			 -EEXIST);
	assert_int_equal(node_open(g, "driver=raw,file=nobody", "", "", &other, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "nobody"));
	assert_int_equal(
		node_open(g, "driver=raw,file=f0,file.driver=file", "", "", &other, &err),
		-EINVAL);
	assert_int_equal(node_open(g, "driver=null-co,node-name=1a", "", "", &other, &err),
			 -EINVAL);
	assert_int_equal(node_open(g, "driver=null-co,node-name=a b", "", "", &other, &err),
			 -EINVAL);
	/* what is refused leaves nothing behind */
	assert_null(blk_find(g, "x"));
	/* the caller's reference goes, raw's stays */
	blk_unref(f);
	assert_ptr_equal(blk_find(g, "f0"), f);
	blk_unref(raw);
	assert_null(blk_find(g, "f0"));
	blk_graph_free(g);
	unlink(path);
	free(path);
	(void)state;
}

static void test_json(void **state)
{
	char *path = blkrig_file(NULL, SIZE);
	struct blk_graph *g;
	struct blk_node *n;
	struct opts o = {.what = "-blockdev"};
	char text[400];
	struct err err;

	assert_int_equal(blk_graph_new(&g), 0);
	snprintf(text, sizeof(text),
		 "json:{\"driver\": \"raw\", \"size\": 4096, \"read-only\": true, \"file\": "
		 "{\"driver\": \"file\", \"filename\": \"%s\"}}",
		 path);
	assert_int_equal(opts_add(&o, "filename", text, &err), 0);
	assert_int_equal(opts_add(&o, "node-name", "j", &err), 0);
	assert_int_equal(blk_open(g, &o, &n, &err), 0);
	opts_fini(&o);
	assert_string_equal(blk_name(n), "j");
	assert_int_equal(blk_size(n), 4096);
	blk_unref(n);
	/* the file of raw is a JSON name */
	o = (struct opts){.what = "-blockdev"};
	snprintf(text, sizeof(text), "json:{\"driver\":\"file\",\"filename\":\"%s\"}", path);
	assert_int_equal(opts_add(&o, "file.filename", text, &err), 0);
	assert_int_equal(blk_open(g, &o, &n, &err), 0);
	opts_fini(&o);
	assert_string_equal(blk_filename(n), path);
	blk_unref(n);
	for (unsigned i = 0; i < 4; i++) {
		static const char *const bad[] = {
			"json:{",
			"json:[]",
			"json:{\"driver\":1.5}",
			"json:{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}}}",
		};

		o = (struct opts){.what = "-blockdev"};
		assert_int_equal(opts_add(&o, "filename", bad[i], &err), 0);
		assert_int_equal(blk_open(g, &o, &n, &err), -EINVAL);
		opts_fini(&o);
	}
	/* names in names in names … end */
	{
		char deep[4096] = "json:{}", next[4096];

		for (int i = 0; i < 6; i++) {
			json_t *j = json_pack("{s:s}", "filename", deep);
			char *dump = json_dumps(j, JSON_COMPACT);

			snprintf(next, sizeof(next), "json:%s", dump);
			memcpy(deep, next, sizeof(deep));
			free(dump);
			json_decref(j);
		}
		o = (struct opts){.what = "-blockdev"};
		assert_int_equal(opts_add(&o, "filename", deep, &err), 0);
		assert_int_equal(blk_open(g, &o, &n, &err), -EINVAL);
		opts_fini(&o);
	}
	blk_graph_free(g);
	unlink(path);
	free(path);
	(void)state;
}

static void test_inheritance(void **state)
{
	char *path = blkrig_file(NULL, SIZE);
	struct blk_graph *g;
	struct blk_node *n, *f;
	struct err err;

	assert_int_equal(blk_graph_new(&g), 0);
	assert_int_equal(
		node_open(g, "read-only=on,cache.no-flush=on,file.node-name=f,file.filename=",
			  path, "", &n, &err),
		0);
	f = blk_find(g, "f");
	assert_true(f->opt.read_only && f->opt.no_flush && !f->opt.unmap);
	blk_unref(n);
	assert_int_equal(node_open(g,
				   "discard=on,file.cache.no-flush=off,cache.no-flush=on,"
				   "file.node-name=f,file.filename=",
				   path, "", &n, &err),
			 0);
	f = blk_find(g, "f");
	assert_true(f->opt.unmap && !f->opt.no_flush);
	assert_true(n->info.can_discard && n->info.write_cache);
	blk_unref(n);
	assert_int_equal(node_open(g, "detect-zeroes=unmap,filename=", path, "", &n, &err),
			 -EINVAL);
	assert_non_null(strstr(err.msg, "discard=unmap"));
	assert_int_equal(node_open(g, "force-share=on,filename=", path, "", &n, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "read-only=on"));
	/* auto-read-only */
	assert_int_equal(chmod(path, 0400), 0);
	if (geteuid() != 0 || seteuid(65534) == 0) {
		int rc = node_open(g, "auto-read-only=on,filename=", path, "", &n, &err);

		if (rc == 0) {
			assert_true(n->info.read_only);
			blk_unref(n);
		} else {
			assert_int_equal(rc, -EACCES); /* the file belongs to root */
		}
		if (getuid() == 0) {
			assert_int_equal(seteuid(0), 0);
		}
	}
	blk_graph_free(g);
	unlink(path);
	free(path);
	(void)state;
}

/* What a device asks of raw arrives at the file, and in its image locks. */
static void test_permissions_and_locks(void **state)
{
	char *path = blkrig_file(NULL, SIZE);
	struct blk_user *a, *b;
	struct blk_graph *g, *g2;
	struct blk_node *n, *m;
	struct err err;

	assert_int_equal(blk_graph_new(&g), 0);
	assert_int_equal(blk_graph_new(&g2), 0);
	assert_int_equal(
		node_open(g, "driver=raw,file.node-name=f,filename=", path, "", &n, &err), 0);
	/* nobody uses it: no lock */
	assert_false(locked(path, 100) || locked(path, 101) || locked(path, 201));
	assert_int_equal(
		blk_attach(n, "device 'a'", READ_WRITE, NO_WRITER, NULL, NULL, &a, &err), 0);
	assert_true(locked(path, 100) && locked(path, 101) && locked(path, 201));
	assert_false(locked(path, 203));
	/* a user of the file itself is in the way of one that stands above */
	assert_int_equal(blk_attach(blk_find(g, "f"), "device 'b'", READ_WRITE, BLK_PERM_ALL,
				    NULL, NULL, &b, &err),
			 -EBUSY);
	assert_int_equal(blk_user_set_perm(a, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err), 0);
	assert_false(locked(path, 101) || locked(path, 201));
	/* another process (another graph will do: locks are those of open files) */
	assert_int_equal(node_open(g2, "driver=raw,filename=", path, "", &m, &err), 0);
	assert_int_equal(blk_attach(m, "x", READ_WRITE, NO_WRITER, NULL, NULL, &b, &err), 0);
	assert_int_equal(blk_user_set_perm(a, READ_WRITE, BLK_PERM_ALL, &err), -EAGAIN);
	assert_non_null(strstr(err.msg, path));
	/* which changed nothing */
	assert_int_equal(a->perm, BLK_PERM_CONSISTENT_READ);
	assert_int_equal(blk_find(g, "f")->perm, BLK_PERM_CONSISTENT_READ);
	blk_detach(b);
	assert_int_equal(blk_user_set_perm(a, READ_WRITE, BLK_PERM_ALL, &err), 0);
	/* both share: both write (share-rw=on) */
	assert_int_equal(blk_attach(m, "x", READ_WRITE, BLK_PERM_ALL, NULL, NULL, &b, &err), 0);
	blk_detach(b);
	blk_unref(m);
	/* force-share looks at what somebody else writes */
	assert_int_equal(blk_user_set_perm(a, READ_WRITE, NO_WRITER, &err), 0);
	assert_int_equal(node_open(g2, "driver=raw,read-only=on,filename=", path, "", &m, &err),
			 0);
	assert_int_equal(
		blk_attach(m, "x", BLK_PERM_CONSISTENT_READ, NO_WRITER, NULL, NULL, &b, &err),
		-EAGAIN);
	blk_unref(m);
	assert_int_equal(node_open(g2, "driver=raw,read-only=on,force-share=on,filename=", path,
				   "", &m, &err),
			 0);
	assert_int_equal(
		blk_attach(m, "x", BLK_PERM_CONSISTENT_READ, NO_WRITER, NULL, NULL, &b, &err),
		0);
	blk_detach(b);
	blk_unref(m);
	blk_detach(a);
	assert_false(locked(path, 100) || locked(path, 101) || locked(path, 201));
	blk_unref(n);
	blk_graph_free(g);
	blk_graph_free(g2);
	unlink(path);
	free(path);
	(void)state;
}

/* --- raw --- */

static void test_raw_window(void **state)
{
	char *path = blkrig_file(NULL, SIZE), text[400];
	uint64_t word;
	struct blkrig r;

	snprintf(text, sizeof(text), "driver=raw,offset=4096,size=8192,file.filename=%s", path);
	assert_int_equal(blkrig_open(&r, text), 0);
	assert_int_equal(r.info.size, 8192);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 8, 8, &word), 0);
	assert_int_equal(word, 4096 + 8);
	word = 77;
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 8184, 8, &word), 0);
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 8192, 8, &word), -EINVAL);
	{
		struct blkreq q;

		blkrig_submit(&r, &q, BLK_STATUS, 0, 512, 100000, NULL);
		assert_int_equal(blkrig_wait(&r, &q), -EINVAL);
		blkrig_submit(&r, &q, BLK_STATUS, 0, 512, 8192 - 512, NULL);
		assert_int_equal(blkrig_wait(&r, &q), 0);
		assert_int_equal(q.req.off, 512); /* as it was */
		assert_int_equal(q.req.status.file_off, 4096 + 512);
		assert_string_equal(blk_filename(q.req.status.file), path);
		assert_true(q.req.status.flags & BLK_EXT_DATA);
	}
	blkrig_close(&r);
	/* a window in a window */
	snprintf(
		text, sizeof(text),
		"driver=raw,offset=4096,file.driver=raw,file.offset=4096,file.file.filename=%s",
		path);
	assert_int_equal(blkrig_open(&r, text), 0);
	assert_int_equal(r.info.size, SIZE - 8192);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 4088, 8, &word), 0);
	assert_int_equal(word, 77);
	blkrig_close(&r);
	snprintf(text, sizeof(text), "driver=raw,offset=4096,size=%llu,filename=%s",
		 (unsigned long long)SIZE, path);
	assert_int_equal(blkrig_open(&r, text), -EINVAL);
	assert_non_null(strstr(r.err.msg, "offset"));
	snprintf(text, sizeof(text), "driver=raw,offset=2M,filename=%s", path);
	assert_int_equal(blkrig_open(&r, text), -EINVAL);
	unlink(path);
	free(path);
	(void)state;
}

/* An odd size is filled up with zeros, and a write there makes the file longer. */
static void test_odd_size(void **state)
{
	char *path = blkrig_file(NULL, 1000), text[400];
	uint8_t buf[1024];
	struct blkrig r;

	snprintf(text, sizeof(text), "driver=raw,filename=%s", path);
	assert_int_equal(blkrig_open(&r, text), 0);
	assert_int_equal(r.info.size, 1024);
	memset(buf, 0xee, sizeof(buf));
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 512, 512, buf), 0);
	assert_true(buf[487] != 0xee && buf[488] == 0 && buf[511] == 0);
	memset(buf, 0x11, 512);
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 512, 512, buf), 0);
	blkrig_close(&r);
	{
		int fd = open(path, O_RDONLY);

		assert_int_equal(lseek(fd, 0, SEEK_END), 1024);
		close(fd);
	}
	unlink(path);
	free(path);
	(void)state;
}

static void test_extents(void **state)
{
	char *path = blkrig_file("/dev/shm", 65536), text[400];
	struct blkreq q;
	struct blkrig r;

	assert_int_equal(truncate(path, SIZE), 0);
	snprintf(text, sizeof(text), "driver=raw,filename=%s", path);
	assert_int_equal(blkrig_open(&r, text), 0);
	blkrig_submit(&r, &q, BLK_STATUS, 0, 4096, SIZE - 4096, NULL);
	assert_int_equal(blkrig_wait(&r, &q), 0);
	assert_int_equal(q.req.status.len, 65536 - 4096);
	assert_int_equal(q.req.status.flags, BLK_EXT_DATA | BLK_EXT_ALLOCATED | BLK_EXT_OFFSET);
	blkrig_submit(&r, &q, BLK_STATUS, 0, 65536, SIZE - 65536, NULL);
	assert_int_equal(blkrig_wait(&r, &q), 0);
	assert_int_equal(q.req.status.len, SIZE - 65536);
	assert_int_equal(q.req.status.flags,
			 BLK_EXT_ZERO | BLK_EXT_ALLOCATED | BLK_EXT_OFFSET | BLK_EXT_EOF);
	blkrig_close(&r);
	unlink(path);
	free(path);
	(void)state;
}

/* --- requests that fit no call --- */

/* Every op at every alignment against a copy, on a node that takes 4 KiB blocks, at most 8 of
 * them and 3 buffers a call. */
static void test_pieces(void **state)
{
	uint8_t *data, *model = malloc(SIZE), *buf = malloc(SIZE);
	struct blk_node *n;
	struct blkrig r;
	unsigned seed = 7;

	assert_int_equal(blk_mem_new("m", SIZE, &n, &data), 0);
	n->info.align = 4096;
	n->info.max_transfer = 32768;
	n->info.max_zeroes = 65536;
	n->info.max_discard = 65536 + 100;
	n->info.max_iov = 3;
	for (unsigned i = 0; i < SIZE; i++) {
		data[i] = model[i] = (uint8_t)(i * 7 + i / 4096);
	}
	blkrig_node(&r, n);
	for (unsigned round = 0; round < 3000; round++) {
		uint64_t off = (uint64_t)rand_r(&seed) % SIZE, len;
		struct blkreq q;
		unsigned niov;

		len = (uint64_t)rand_r(&seed) % (round % 3 ? 9000 : 200000);
		len = MIN(len, SIZE - off);
		if (round % 5 == 0) {
			off = align_down(off, 4096);
		}
		niov = 1 + (unsigned)rand_r(&seed) % 7;
		switch (round % 4) {
		case 0:
		case 1:
			for (unsigned i = 0; i < len; i++) {
				buf[i] = round % 4 ? (uint8_t)rand_r(&seed) : 0xaa;
			}
			for (unsigned i = 0; i < niov; i++) {
				uint64_t from = len * i / niov, to = len * (i + 1) / niov;

				q.iov[i] = (struct iovec){buf + from, to - from};
			}
			if (round % 4) {
				memcpy(model + off, buf, len);
			}
			blkrig_submit_iov(&r, &q, round % 4 ? BLK_WRITE : BLK_READ, 0, off,
					  niov);
			assert_int_equal(blkrig_wait(&r, &q), 0);
			assert_memory_equal(buf, model + off, len);
			break;
		case 2:
			memset(model + off, 0, len);
			assert_int_equal(blkrig_do(&r, BLK_WRITE_ZEROES, 0, off, len, NULL), 0);
			break;
		default: {
			uint64_t from = align_up(off, 4096), to = align_down(off + len, 4096);

			if (from < to) {
				memset(model + from, 0, to - from);
			}
			assert_int_equal(blkrig_do(&r, BLK_DISCARD, 0, off, len, NULL), 0);
		}
		}
		if (round % 100 == 0) {
			assert_memory_equal(data, model, SIZE);
		}
	}
	assert_memory_equal(data, model, SIZE);
	assert_int_equal(blkrig_do(&r, BLK_WRITE_ZEROES, BLK_NO_FALLBACK, 1, 100, NULL),
			 -ENOTSUP);
	blkrig_close(&r);
	free(model);
	free(buf);
	(void)state;
}

/* Two loops write the odd and the even bytes of the same blocks at once: no byte is lost. */
struct writer {
	struct blk_io *io;
	unsigned first;
	pthread_t thread;
};

static void *writer_main(void *arg)
{
	struct writer *w = arg;

	for (unsigned i = w->first; i < 8192; i += 2) {
		uint8_t v = (uint8_t)(i * 3 + 1);

		if (blk_io_write(w->io, i, &v, 1, 0)) {
			return w;
		}
	}
	return NULL;
}

static void test_partial_blocks_on_two_loops(void **state)
{
	struct writer w[2] = {{.first = 0}, {.first = 1}};
	struct blk_node *n;
	uint8_t *data;
	struct err err;

	assert_int_equal(blk_mem_new("m", 8192, &n, &data), 0);
	n->info.align = 4096;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(blk_io_open(n, &w[i].io, &err), 0);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&w[i].thread, NULL, writer_main, &w[i]), 0);
	}
	for (int i = 0; i < 2; i++) {
		void *failed;

		pthread_join(w[i].thread, &failed);
		assert_null(failed);
		blk_io_close(w[i].io);
	}
	for (unsigned i = 0; i < 8192; i++) {
		assert_int_equal(data[i], (uint8_t)(i * 3 + 1));
	}
	blk_unref(n);
	(void)state;
}

static void test_detect_zeroes(void **state)
{
	char *path = blkrig_file("/dev/shm", SIZE), text[400], *buf = calloc(1, 65536);
	struct blkreq q;
	struct blkrig r;

	snprintf(text, sizeof(text), "driver=raw,detect-zeroes=unmap,discard=unmap,filename=%s",
		 path);
	assert_int_equal(blkrig_open(&r, text), 0);
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 65536, 65536, buf), 0);
	blkrig_submit(&r, &q, BLK_STATUS, 0, 65536, 65536, NULL);
	assert_int_equal(blkrig_wait(&r, &q), 0);
	assert_true(q.req.status.flags & BLK_EXT_ZERO);
	buf[65535] = 1;
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 65536, 65536, buf), 0);
	blkrig_submit(&r, &q, BLK_STATUS, 0, 65536, 65536, NULL);
	assert_int_equal(blkrig_wait(&r, &q), 0);
	assert_false(q.req.status.flags & BLK_EXT_ZERO);
	blkrig_close(&r);
	unlink(path);
	free(path);
	free(buf);
	(void)state;
}

/* --- drain, cancel --- */

static void count_up(void *opaque)
{
	(*(unsigned *)opaque)++;
}

static void settle(struct loop *l)
{
	for (int i = 0; i < 10; i++) {
		loop_step(l, 0);
	}
}

static void test_drain(void **state)
{
	unsigned a_told = 0, b_told = 0;
	struct blk_node *mem, *fault;
	struct blkreq q, late;
	struct blkrig r;
	struct blk_drain a, b;
	uint8_t *data, v = 5;
	struct loop *l;

	assert_int_equal(blk_mem_new("m", 65536, &mem, &data), 0);
	assert_int_equal(blk_fault_new("f", mem, &fault), 0);
	blkrig_node(&r, fault);
	l = r.loop;
	a = (struct blk_drain){.loop = l, .drained = count_up, .opaque = &a_told};
	b = (struct blk_drain){.loop = l, .drained = count_up, .opaque = &b_told};
	blk_fault_hold(fault, true);
	blkrig_submit(&r, &q, BLK_WRITE, 0, 0, 1, &v);
	blk_drain_begin(fault, &a);
	settle(l);
	assert_int_equal(a_told, 0);
	blkrig_submit(&r, &late, BLK_WRITE, 0, 1, 1, &v); /* waits in the channel */
	settle(l);
	assert_int_equal(blk_fault_held(fault), 1);
	assert_int_equal(blk_chan_inflight(r.chan), 2);
	blk_fault_hold(fault, false);
	settle(l);
	assert_true(q.done && !late.done);
	assert_int_equal(a_told, 1);
	/* a second one is told at once; the node starts when both have ended */
	blk_drain_begin(fault, &b);
	settle(l);
	assert_int_equal(b_told, 1);
	blk_drain_end(&a);
	settle(l);
	assert_false(late.done);
	blk_drain_end(&b);
	assert_int_equal(blkrig_wait(&r, &late), 0);
	assert_int_equal(data[1], 5);
	/* nobody waits for a blk_io that is in no call */
	{
		struct blk_io *io;
		struct err err;

		assert_int_equal(blk_io_open(fault, &io, &err), 0);
		assert_int_equal(blk_io_write(io, 9, &v, 1, 0), 0);
		blk_drain_begin(fault, &b);
		settle(l);
		assert_int_equal(b_told, 2);
		blk_drain_end(&b);
		settle(l);
		assert_int_equal(blk_io_write(io, 10, &v, 1, 0), 0);
		blk_io_close(io);
	}
	/* cancelled while it waits; and held in the driver */
	blk_drain_begin(fault, &a);
	settle(l);
	blkrig_submit(&r, &late, BLK_WRITE, 0, 2, 1, &v);
	blk_cancel(&late.req);
	assert_false(late.done);
	assert_int_equal(blkrig_wait(&r, &late), -ECANCELED);
	blk_drain_end(&a);
	settle(l);
	blk_fault_hold(fault, true);
	blkrig_submit(&r, &late, BLK_WRITE, 0, 2, 1, &v);
	settle(l);
	blk_cancel(&late.req);
	assert_int_equal(blkrig_wait(&r, &late), -ECANCELED);
	assert_int_equal(data[2], 0);
	blk_fault_hold(fault, false);
	blkrig_close(&r);
	(void)state;
}

/* Channels on loops with threads of their own under load, drained again and again. */
struct hammer {
	struct loop *loop;
	struct blk_chan *chan;
	struct blk_req req;
	struct iovec iov;
	uint8_t byte;
	_Atomic bool stop, stopped;
	_Atomic unsigned done;
};

static void hammer_done(struct blk_req *req, int result)
{
	struct hammer *h = container_of(req, struct hammer, req);

	assert(result == 0);
	h->done++;
	if (h->stop) {
		h->stopped = true;
	} else {
		blk_submit(h->chan, req);
	}
}

static void hammer_start(void *arg)
{
	struct hammer *h = arg;

	blk_submit(h->chan, &h->req);
}

static void hammer_close(void *arg)
{
	blk_chan_close(((struct hammer *)arg)->chan);
}

static void test_drain_across_loops(void **state)
{
	struct hammer *h = calloc(2, sizeof(*h));
	unsigned told = 0;
	struct blk_node *n;
	struct loop *l;
	uint8_t *data;
	struct err err;

	assert_int_equal(loop_new(&l, "main", 0), 0);
	assert_int_equal(blk_mem_new("m", 65536, &n, &data), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(loop_new(&h[i].loop, "io", 0), 0);
		assert_int_equal(blk_chan_open(n, h[i].loop, &h[i].chan, &err), 0);
		h[i].iov = (struct iovec){&h[i].byte, 1};
		h[i].req = (struct blk_req){.op = BLK_READ,
					    .off = (uint64_t)i,
					    .len = 1,
					    .iov = &h[i].iov,
					    .niov = 1,
					    .done = hammer_done};
		assert_int_equal(loop_thread_start(h[i].loop, NULL, NULL), 0);
		loop_call(h[i].loop, hammer_start, &h[i]);
	}
	for (unsigned round = 1; round <= 50; round++) {
		struct blk_drain d = {.loop = l, .drained = count_up, .opaque = &told};
		unsigned done[2];

		blk_drain_begin(n, &d);
		while (told < round) {
			loop_step(l, 100);
		}
		done[0] = h[0].done;
		done[1] = h[1].done;
		usleep(200);
		assert_int_equal(h[0].done, done[0]);
		assert_int_equal(h[1].done, done[1]);
		blk_drain_end(&d);
		while (h[0].done == done[0] || h[1].done == done[1]) {
			usleep(50);
		}
	}
	for (int i = 0; i < 2; i++) {
		h[i].stop = true;
		while (!h[i].stopped) {
			usleep(50);
		}
		loop_call(h[i].loop, hammer_close, &h[i]);
		loop_thread_join(h[i].loop);
		loop_free(h[i].loop);
	}
	blk_unref(n);
	loop_free(l);
	free(h);
	(void)state;
}

/* --- resize, reopen --- */

static void test_truncate(void **state)
{
	static const struct blk_user_ops ops = {.resized = count_up};
	char *path = blkrig_file(NULL, 65536);
	unsigned told = 0, told_file = 0;
	struct blk_user *u, *uf;
	struct blk_graph *g;
	struct blk_node *n;
	struct blk_io *io;
	struct err err;
	char c = 1;

	assert_int_equal(blk_graph_new(&g), 0);
	assert_int_equal(
		node_open(g, "driver=raw,file.node-name=f,filename=", path, "", &n, &err), 0);
	assert_int_equal(blk_attach(n, "t", READ_WRITE, BLK_PERM_ALL, &ops, &told, &u, &err),
			 0);
	assert_int_equal(
		blk_attach(blk_find(g, "f"), "t", 0, BLK_PERM_ALL, &ops, &told_file, &uf, &err),
		0);
	assert_int_equal(blk_truncate(n, 131072, BLK_PREALLOC_OFF, &err), -EPERM);
	assert_int_equal(blk_user_set_perm(u, READ_WRITE | BLK_PERM_RESIZE, BLK_PERM_ALL, &err),
			 0);
	assert_int_equal(blk_truncate(n, 131072, BLK_PREALLOC_OFF, &err), 0);
	assert_int_equal(blk_size(n), 131072);
	assert_true(told == 1 && told_file == 1);
	assert_int_equal(blk_truncate(n, 262144, BLK_PREALLOC_FULL, &err), 0);
	assert_int_equal(blk_truncate(n, 524288, BLK_PREALLOC_FALLOC, &err), 0);
	assert_int_equal(blk_truncate(n, 1 << 20, BLK_PREALLOC_METADATA, &err), -ENOTSUP);
	assert_int_equal(blk_io_open(n, &io, &err), 0);
	assert_int_equal(blk_io_read(io, 524287, &c, 1), 0);
	assert_int_equal(c, 0);
	assert_int_equal(blk_truncate(n, 4096, BLK_PREALLOC_OFF, &err), 0);
	assert_int_equal(blk_io_read(io, 4096, &c, 1), -EINVAL);
	assert_int_equal(told, 4);
	blk_io_close(io);
	blk_detach(u);
	blk_detach(uf);
	blk_unref(n);
	/* a fixed size stays; read-only stays */
	assert_int_equal(node_open(g, "driver=raw,size=512,filename=", path, "", &n, &err), 0);
	assert_int_equal(
		blk_attach(n, "t", BLK_PERM_RESIZE, BLK_PERM_ALL, NULL, NULL, &u, &err), 0);
	assert_int_equal(blk_truncate(n, 1024, BLK_PREALLOC_OFF, &err), -ENOTSUP);
	blk_detach(u);
	blk_unref(n);
	blk_graph_free(g);
	unlink(path);
	free(path);
	(void)state;
}

static int reopen(struct blk_node *n, const char *text, struct err *err)
{
	struct opts o;
	int rc = opts_parse(&o, "blockdev-reopen", text, NULL, err);

	assert_int_equal(rc, 0);
	rc = blk_reopen(n, &o, err);
	opts_fini(&o);
	return rc;
}

/* Of a node on a file both change. */
static void test_reopen_below(void **state)
{
	char *path = blkrig_file(NULL, 65536), c = 9;
	struct blk_graph *g;
	struct blk_node *n, *f;
	struct blk_io *io;
	struct err err;

	assert_int_equal(blk_graph_new(&g), 0);
	assert_int_equal(node_open(g, "driver=raw,read-only=on,offset=4096,file.node-name=f,filename=",
				   path, "", &n, &err),
			 0);
	f = blk_find(g, "f");
	assert_int_equal(blk_io_open(n, &io, &err), 0);
	assert_int_equal(blk_io_write(io, 0, &c, 1, 0), -EROFS);
	assert_int_equal(reopen(n, "read-only=off,discard=unmap,detect-zeroes=on", &err), 0);
	assert_false(f->info.read_only || n->info.read_only);
	assert_true(f->info.can_discard && n->info.can_discard);
	assert_int_equal(f->opt.detect_zeroes, BLK_DETECT_OFF);
	assert_int_equal(blk_size(n), 65536 - 4096);
	assert_int_equal(blk_io_write(io, 0, &c, 1, 0), 0);
	assert_int_equal(reopen(n, "read-only=on", &err), 0);
	assert_int_equal(blk_io_write(io, 0, &c, 1, 0), -EROFS);
	assert_int_equal(reopen(n, "offset=0", &err), -EINVAL);
	blk_io_close(io);
	blk_unref(n);
	blk_graph_free(g);
	unlink(path);
	free(path);
	(void)state;
}

static void test_reopen(void **state)
{
	char *path = blkrig_file(NULL, 65536), c = 9;
	struct blk_user *u;
	struct blk_graph *g;
	struct blk_node *n;
	struct blk_io *io;
	struct err err;

	assert_int_equal(blk_graph_new(&g), 0);
	assert_int_equal(node_open(g, "driver=file,read-only=on,filename=", path, "", &n, &err),
			 0);
	assert_int_equal(
		blk_attach(n, "t", BLK_PERM_CONSISTENT_READ, NO_WRITER, NULL, NULL, &u, &err),
		0);
	assert_int_equal(blk_io_open(n, &io, &err), 0);
	assert_int_equal(blk_io_write(io, 0, &c, 1, 0), -EROFS);
	assert_int_equal(reopen(n, "read-only=off,discard=unmap", &err), 0);
	assert_true(n->info.can_discard && locked(path, 201));
	assert_int_equal(blk_user_set_perm(u, READ_WRITE, NO_WRITER, &err), 0);
	assert_true(locked(path, 101));
	assert_int_equal(blk_io_write(io, 100, &c, 1, 0), 0);
	c = 0;
	assert_int_equal(blk_io_read(io, 100, &c, 1), 0);
	assert_int_equal(c, 9);
	assert_int_equal(reopen(n, "read-only=on", &err), -EBUSY);
	assert_int_equal(reopen(n, "filename=/x", &err), -EINVAL);
	assert_int_equal(reopen(n, "node-name=y", &err), -EINVAL);
	if (reopen(n, "cache.direct=on", &err) == 0) {
		c = 3;
		assert_int_equal(blk_io_write(io, 777, &c, 1, 0), 0);
		assert_int_equal(reopen(n, "cache.direct=off,cache.no-flush=on", &err), 0);
		assert_int_equal(blk_io_read(io, 777, &c, 1), 0);
		assert_int_equal(c, 3);
		assert_false(n->info.write_cache);
	}
	assert_int_equal(blk_user_set_perm(u, BLK_PERM_CONSISTENT_READ, NO_WRITER, &err), 0);
	assert_int_equal(reopen(n, "read-only=on,discard=ignore", &err), 0);
	assert_int_equal(blk_io_write(io, 0, &c, 1, 0), -EROFS);
	assert_int_equal(blk_io_read(io, 100, &c, 1), 0);
	blk_io_close(io);
	blk_detach(u);
	blk_unref(n);
	blk_graph_free(g);
	unlink(path);
	free(path);
	(void)state;
}

/* Copies in the kernel, through windows; what is no file says so. */
static void test_copy_range(void **state)
{
	char *from = blkrig_file(NULL, 65536), *to = blkrig_file(NULL, 65536);
	struct blk_node *src, *dst, *null;
	struct blk_graph *g;
	struct blk_user *u;
	struct blk_io *io;
	uint64_t word = 0, done = 0;
	int64_t n = 0;
	struct err err;

	assert_int_equal(blk_graph_new(&g), 0);
	assert_int_equal(node_open(g, "driver=raw,read-only=on,offset=8192,filename=", from, "",
				   &src, &err),
			 0);
	assert_int_equal(node_open(g, "driver=raw,offset=4096,filename=", to, "", &dst, &err),
			 0);
	assert_int_equal(node_open(g, "driver=null-co", "", "", &null, &err), 0);
	assert_int_equal(blk_copy_range(src, 0, dst, 0, 4096), -EROFS);
	assert_int_equal(blk_attach(dst, "t", READ_WRITE, BLK_PERM_ALL, NULL, NULL, &u, &err),
			 0);
	assert_int_equal(blk_copy_range(src, 0, dst, UINT64_MAX, 4096), -EINVAL);
	assert_int_equal(blk_copy_range(null, 0, dst, 0, 4096), -ENOTSUP);
	while (done < 16384 && (n = blk_copy_range(src, done, dst, done, 16384 - done)) > 0) {
		done += (uint64_t)n;
	}
	if (n != -ENOTSUP) { /* such a file system */
		assert_int_equal(done, 16384);
		assert_int_equal(blk_io_open(dst, &io, &err), 0);
		assert_int_equal(blk_io_read(io, 16376, &word, 8), 0);
		assert_int_equal(word, 8192 + 16376);
		assert_int_equal(blk_io_read(io, 16384, &word, 8), 0);
		assert_int_equal(word, 4096 + 16384);
		blk_io_close(io);
	}
	blk_detach(u);
	blk_unref(src);
	blk_unref(dst);
	blk_unref(null);
	blk_graph_free(g);
	unlink(from);
	unlink(to);
	free(from);
	free(to);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_children),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_inheritance),
		cmocka_unit_test(test_permissions_and_locks),
		cmocka_unit_test(test_raw_window),
		cmocka_unit_test(test_odd_size),
		cmocka_unit_test(test_extents),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_partial_blocks_on_two_loops),
		cmocka_unit_test(test_detect_zeroes),
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_drain_across_loops),
		cmocka_unit_test(test_truncate),
		cmocka_unit_test(test_reopen),
		cmocka_unit_test(test_reopen_below),
		cmocka_unit_test(test_copy_range),
	};

	return cmocka_run_group_tests_name("block graph", tests, NULL, NULL);
}
