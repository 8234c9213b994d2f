/*
 * An image behind the block layer, driven by lines on standard input; for the tests of tests/format.
 *
 *   qcow2_tool OPTIONS            OPTIONS as of -blockdev
 *   qcow2_tool --create FILE OPTIONS      makes FILE, options of create
 *   qcow2_tool --measure OPTIONS
 *
 * Each line gets one answer line: "ok …" or "error ERRNO sentence".
 *   write OFF LEN BYTE [fua]   zero OFF LEN [unmap]   discard OFF LEN   flush
 *   writes N OFF LEN STEP BYTE        N writes at once, each STEP after the one before it
 *   compress OFF LEN BYTE      packed OFF BYTE        (a whole cluster, compressed by the caller)
 *   read OFF LEN BYTE          error 74 if there is anything else
 *   dump FILE                  all of it
 *   map                        "ok off+len:flags …"
 *   resize SIZE [MODE]   snapshot create|apply|delete|load NAME   snapshots
 *   check FIX   info   backing [FILE FMT]   empty   size
 *   reopen OPTIONS             read-only=on takes the tool's own right to write away first
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/block_int.h"
#include "block/io.h"

static struct blk_graph *graph;
static struct blk_node *node;
static struct blk_io *io;
static struct blk_user *user;
static struct err err;

static int fail(int r)
{
	printf("error %d %s\n", -r, err.msg[0] ? err.msg : strerror(-r));
	err.msg[0] = '\0';
	return 0;
}

static int say(int r)
{
	if (r < 0) {
		return fail(r);
	}
	printf("ok\n");
	return 0;
}

static uint8_t *filled(uint64_t len, int byte)
{
	uint8_t *p = malloc(len ? len : 1);

	if (!p) {
		exit(1);
	}
	memset(p, byte, len);
	return p;
}

static int do_write(uint64_t off, uint64_t len, int byte, unsigned flags)
{
	uint8_t *p = filled(len, byte);
	int r = blk_io_write(io, off, p, len, flags);

	free(p);
	return say(r);
}

struct many {
	struct blk_req req;
	struct iovec iov[3];
	unsigned *left;
	int *result;
};

static void many_done(struct blk_req *req, int result)
{
	struct many *m = container_of(req, struct many, req);

	if (result < 0) {
		*m->result = result;
	}
	--*m->left;
}

static int do_writes(unsigned n, uint64_t off, uint64_t len, uint64_t step, int byte)
{
	struct many *m = calloc(n, sizeof(*m));
	uint8_t *p = filled(len, byte);
	unsigned left = n;
	int result = 0;

	blk_io_own(io);
	for (unsigned i = 0; i < n; i++) {
		/* in three parts, so that lists of them are cut and joined */
		uint64_t a = len / 3, b = len / 2;

		m[i].iov[0] = (struct iovec){p, a};
		m[i].iov[1] = (struct iovec){p + a, b - a};
		m[i].iov[2] = (struct iovec){p + b, len - b};
		m[i].left = &left;
		m[i].result = &result;
		m[i].req = (struct blk_req){.op = BLK_WRITE,
					    .off = off + i * step,
					    .len = len,
					    .iov = m[i].iov,
					    .niov = 3,
					    .done = many_done};
		blk_submit(blk_io_chan(io), &m[i].req);
	}
	while (left) {
		loop_step(blk_io_loop(io), -1);
	}
	free(m);
	free(p);
	return say(result);
}

static int do_read(uint64_t off, uint64_t len, int byte)
{
	uint8_t *p = filled(len, ~byte);
	int r = blk_io_read(io, off, p, len);

	for (uint64_t i = 0; i < len && !r; i++) {
		if (p[i] != (uint8_t)byte) {
			snprintf(err.msg, sizeof(err.msg), "%02x at %" PRIu64, p[i], off + i);
			r = -EBADMSG;
		}
	}
	free(p);
	return say(r);
}

static int do_dump(const char *file)
{
	uint64_t size = blk_size(node), step = 1 << 20;
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0644), r = fd < 0 ? -errno : 0;
	uint8_t *p = filled(step, 0);

	for (uint64_t off = 0; off < size && !r; off += step) {
		uint64_t n = MIN(step, size - off);

		r = blk_io_read(io, off, p, n);
		if (!r && pwrite(fd, p, n, (off_t)off) != (ssize_t)n) {
			r = -EIO;
		}
	}
	free(p);
	if (fd >= 0) {
		close(fd);
	}
	return say(r);
}

static int do_map(void)
{
	uint64_t size = blk_size(node);

	printf("ok");
	for (uint64_t off = 0; off < size;) {
		struct blk_extent e;
		int r = blk_io_status(io, off, size - off, &e);

		if (r < 0) {
			printf(" error %d\n", -r);
			return 0;
		}
		printf(" %" PRIu64 "+%" PRIu64 ":%s%s%s%s", off, e.len,
		       e.flags & BLK_EXT_DATA ? "d" : "", e.flags & BLK_EXT_ZERO ? "z" : "",
		       e.flags & BLK_EXT_ALLOCATED ? "a" : "",
		       e.flags & BLK_EXT_COMPRESSED ? "c" : "");
		off += e.len;
	}
	printf("\n");
	return 0;
}

static int do_snapshot(const char *what, const char *name)
{
	const struct blk_driver *d = node->drv;

	if (!strcmp(what, "create")) {
		return say(d->snapshot_create(node, name, &err));
	}
	if (!strcmp(what, "apply")) {
		return say(d->snapshot_apply(node, name, &err));
	}
	if (!strcmp(what, "load")) {
		return say(d->snapshot_load(node, name, &err));
	}
	return say(d->snapshot_delete(node, name, &err));
}

static int do_snapshots(void)
{
	struct blk_snapshot *s;
	size_t n;
	int r = node->drv->snapshot_list(node, &s, &n, &err);

	if (r) {
		return fail(r);
	}
	printf("ok");
	for (size_t i = 0; i < n; i++) {
		printf(" %s:%s:%" PRIu64, s[i].id, s[i].name, s[i].disk_size);
		free(s[i].id);
		free(s[i].name);
	}
	free(s);
	printf("\n");
	return 0;
}

static int do_check(unsigned fix)
{
	struct blk_check c;
	int r = node->drv->check(node, &c, fix, &err);

	if (r) {
		return fail(r);
	}
	printf("ok errors=%" PRIu64 " corruptions=%" PRIu64 " leaks=%" PRIu64
	       " corruptions-fixed=%" PRIu64 " leaks-fixed=%" PRIu64 " end=%" PRIu64
	       " total=%" PRIu64 " allocated=%" PRIu64 " fragmented=%" PRIu64
	       " compressed=%" PRIu64 "\n",
	       c.check_errors, c.corruptions, c.leaks, c.corruptions_fixed, c.leaks_fixed,
	       c.image_end_offset, c.total_clusters, c.allocated_clusters,
	       c.fragmented_clusters, c.compressed_clusters);
	return 0;
}

static int do_packed(uint64_t off, int byte)
{
	size_t size = node->info.cluster_size;
	uint8_t *p = filled(size, byte), *out = filled(size, 0);
	struct blk_packer *packer = blk_image_packer(node);
	size_t n = packer ? packer->pack(packer, p, size, out, size - 1) : 0;
	struct blk_packed packed = {off, out, n};
	int r = n ? blk_image_write_compressed(node, &packed, 1) : -EFBIG;

	if (packer) {
		packer->free(packer);
	}
	free(p);
	free(out);
	return say(r);
}

static int do_info(void)
{
	json_t *v;
	int r = node->drv->specific_info(node, &v, &err);
	char *text;

	if (r) {
		return fail(r);
	}
	text = json_dumps(v, JSON_COMPACT);
	printf("ok %s\n", text);
	free(text);
	json_decref(v);
	return 0;
}

static int do_backing(unsigned n, const char *file, const char *fmt)
{
	char *f, *t;

	if (n > 1) {
		return say(node->drv->set_backing(node, strcmp(file, "-") ? file : NULL,
						  n > 2 ? fmt : NULL, &err));
	}
	node->drv->backing_name(node, &f, &t, &err);
	printf("ok %s %s\n", f ? f : "-", t ? t : "-");
	free(f);
	free(t);
	return 0;
}

static int do_reopen(const char *text)
{
	struct opts o = {0};
	unsigned perm = BLK_PERM_CONSISTENT_READ;
	int r = opts_parse(&o, "reopen", text, NULL, &err);

	if (!r && strstr(text, "read-only=on")) {
		r = blk_user_set_perm(user, perm, BLK_PERM_ALL, &err);
	}
	r = r ? r : blk_reopen(node, &o, &err);
	opts_fini(&o);
	if (!r && !node->info.read_only) {
		perm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
		r = blk_user_set_perm(user, perm, BLK_PERM_ALL, &err);
	}
	return say(r);
}

static uint64_t num(const char *s)
{
	return strtoull(s, NULL, 0);
}

static int command(unsigned n, char **a)
{
	static const char *const modes[] = {"off", "metadata", "falloc", "full"};
	const char *c = a[0];
	unsigned mode = 0;

	if (!strcmp(c, "write") && n >= 4) {
		return do_write(num(a[1]), num(a[2]), (int)num(a[3]), n > 4 ? BLK_FUA : 0);
	} else if (!strcmp(c, "writes") && n == 6) {
		return do_writes((unsigned)num(a[1]), num(a[2]), num(a[3]), num(a[4]),
				 (int)num(a[5]));
	} else if (!strcmp(c, "compress") && n == 4) {
		return do_write(num(a[1]), num(a[2]), (int)num(a[3]), BLK_WRITE_COMPRESSED);
	} else if (!strcmp(c, "packed") && n == 3) {
		return do_packed(num(a[1]), (int)num(a[2]));
	} else if (!strcmp(c, "zero") && n >= 3) {
		return say(blk_io_zero(io, num(a[1]), num(a[2]), n > 3 ? BLK_MAY_UNMAP : 0));
	} else if (!strcmp(c, "discard") && n == 3) {
		return say(blk_io_discard(io, num(a[1]), num(a[2])));
	} else if (!strcmp(c, "flush")) {
		return say(blk_io_flush(io));
	} else if (!strcmp(c, "read") && n == 4) {
		return do_read(num(a[1]), num(a[2]), (int)num(a[3]));
	} else if (!strcmp(c, "dump") && n == 2) {
		return do_dump(a[1]);
	} else if (!strcmp(c, "map")) {
		return do_map();
	} else if (!strcmp(c, "resize") && n >= 2) {
		while (n > 2 && mode < 3 && strcmp(modes[mode], a[2])) {
			mode++;
		}
		return say(blk_truncate(node, num(a[1]), (enum blk_prealloc)mode, &err));
	} else if (!strcmp(c, "snapshot") && n == 3) {
		return do_snapshot(a[1], a[2]);
	} else if (!strcmp(c, "snapshots")) {
		return do_snapshots();
	} else if (!strcmp(c, "check") && n == 2) {
		return do_check((unsigned)num(a[1]));
	} else if (!strcmp(c, "info")) {
		return do_info();
	} else if (!strcmp(c, "backing")) {
		return do_backing(n, a[1], n > 2 ? a[2] : NULL);
	} else if (!strcmp(c, "empty")) {
		return say(node->drv->make_empty(node, &err));
	} else if (!strcmp(c, "reopen") && n == 2) {
		return do_reopen(a[1]);
	} else if (!strcmp(c, "size")) {
		printf("ok %" PRIu64 "\n", blk_size(node));
		return 0;
	}
	snprintf(err.msg, sizeof(err.msg), "what is '%s'?", c);
	return fail(-EINVAL);
}

static int open_node(const char *text, struct blk_node **out)
{
	struct opts o = {0};
	int r = opts_parse(&o, "image", text, "driver", &err);

	r = r ? r : blk_open(graph, &o, out, &err);
	opts_fini(&o);
	return r;
}

static int create(const char *file, const char *text)
{
	struct opts o = {0};
	char buf[1024];
	int fd = open(file, O_RDWR | O_CREAT, 0644), r;

	close(fd);
	snprintf(buf, sizeof(buf), "driver=file,filename=%s", file);
	r = open_node(buf, &node);
	r = r ? r
	      : blk_attach(node, "tool", BLK_PERM_WRITE | BLK_PERM_RESIZE, BLK_PERM_ALL, NULL,
			   NULL, &user, &err);
	r = r ? r : opts_parse(&o, "create", text, "size", &err);
	r = r ? r : blk_driver_find("qcow2")->create(graph, node, &o, &err);
	opts_fini(&o);
	blk_detach(user);
	blk_unref(node);
	say(r);
	return r != 0;
}

static int measure(const char *text)
{
	struct blk_measure m;
	struct opts o = {0};
	int r = opts_parse(&o, "measure", text, "size", &err);

	r = r ? r : blk_driver_find("qcow2")->measure(&o, NULL, &m, &err);
	opts_fini(&o);
	if (r) {
		fail(r);
		return 1;
	}
	printf("ok %" PRIu64 " %" PRIu64 "\n", m.required, m.fully_allocated);
	return 0;
}

int main(int argc, char **argv)
{
	char line[4096];
	unsigned perm = 0;
	int r;

	blk_graph_new(&graph);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 4 && !strcmp(argv[1], "--create")) {
		return create(argv[2], argv[3]);
	}
	if (argc == 3 && !strcmp(argv[1], "--measure")) {
		return measure(argv[2]);
	}
	if (argc != 2) {
		fprintf(stderr, "usage: qcow2_tool OPTIONS | --create FILE OPTIONS\n");
		return 2;
	}
	r = open_node(argv[1], &node);
	if (!r && !node->info.read_only) {
		perm = BLK_PERM_WRITE | BLK_PERM_RESIZE;
	}
	r = r ? r
	      : blk_attach(node, "tool", BLK_PERM_CONSISTENT_READ | perm, BLK_PERM_ALL, NULL,
			   NULL, &user, &err);
	r = r ? r : blk_io_open(node, &io, &err);
	if (r) {
		fail(r);
		return 1;
	}
	printf("ok open\n");
	while (fgets(line, sizeof(line), stdin)) {
		char *a[8], *save = NULL;
		unsigned n = 0;

		for (char *w = strtok_r(line, " \n", &save); w && n < 8;
		     w = strtok_r(NULL, " \n", &save)) {
			a[n++] = w;
		}
		if (n) {
			command(n, a);
		}
	}
	blk_io_close(io);
	blk_detach(user);
	blk_unref(node);
	blk_graph_free(graph);
	return 0;
}
