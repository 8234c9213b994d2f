/*
 * Loss of power under a running guest, for tests/system/test_crash.py: nemu's command line and machine
 * with two more drivers, which stand around the format that is tested.
 *
 *     crash_tool MOMENTS IMAGES SEED DIR -- NEMU OPTIONS... -blockdev
 *          driver=witness,node-name=N,file.driver=qcow2,file.file.driver=power,file.file.filename=F
 *
 *   witness   writes down what the guest wrote, and which of its flushes were acknowledged
 *   power     a disk of block/journal.h, whose first content is the file F (which is never written)
 *
 * The guest runs until the disk has seen MOMENTS begins and ends of writes. Then, IMAGES times: power is
 * lost at one of them, with unsynced writes kept, lost, or some sectors of them lost. What is left has to
 * open and to check without a corruption, and each sector to hold what the last acknowledged flush covers
 * or something that was written there since. Some images are left in DIR for other programs' checks.
 *
 * "Acknowledged" is when the device is told, before the guest can know: so more is asked of the format
 * than the guest could ask. Exit status 0; 1 with one sentence. No sandbox. The drivers are linked in
 * place of block/drivers.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/journal.h"
#include "block/qcow2_int.h"
#include "control/cli.h"
#include "event/loop.h"
#include "machine/machine.h"

#define SECTOR	512u
#define POLL_NS UINT64_C(1000000)
#define LIMIT_S 120

/* --- what was seen: one machine, one disk --- */

struct entry {
	enum blk_op op;
	struct blk_req *req; /* NULL: it has ended */
	uint64_t off, len;
	uint8_t *data;
	/* order among entries; 0: not ended */
	unsigned began, ended;
	/* the journal's moments */
	unsigned began_at, ended_at;
	bool fua;
};
static struct {
	pthread_mutex_t lock; /* entries, order */
	struct entry *entry;
	size_t count;
	unsigned order;
	struct blk_journal *journal;
	uint64_t size;	/* of the guest's disk */
	uint8_t *first; /* its content before the guest ran */
	bool failed;	/* a request */
} seen = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *must(void *p)
{
	if (!p) {
		fprintf(stderr, "crash_tool: out of memory\n");
		exit(1);
	}
	return p;
}

static void entry_add(struct blk_req *r)
{
	struct entry e = {.op = r->op, .req = r, .off = r->off, .len = r->len};

	e.fua = r->flags & BLK_FUA;
	if (r->op == BLK_WRITE) {
		struct iov_cur cur = iov_cur_init(r->iov, r->niov);

		e.data = must(malloc(r->len));
		iov_cur_read(&cur, e.data, r->len);
	}
	pthread_mutex_lock(&seen.lock);
	seen.entry = must(reallocarray(seen.entry, seen.count + 1, sizeof(e)));
	e.began = ++seen.order;
	e.began_at = blk_journal_now(seen.journal);
	seen.entry[seen.count++] = e;
	pthread_mutex_unlock(&seen.lock);
}

static void entry_end(struct blk_req *r, int result)
{
	pthread_mutex_lock(&seen.lock);
	for (size_t i = seen.count; i-- > 0;) {
		struct entry *e = &seen.entry[i];

		if (e->req == r) {
			e->req = NULL;
			e->ended = ++seen.order;
			e->ended_at = blk_journal_now(seen.journal);
			break;
		}
	}
	seen.failed = seen.failed || result < 0;
	pthread_mutex_unlock(&seen.lock);
}

/* --- the drivers: both hand requests down as they are --- */

struct pass_chan {
	struct blk_chan chan;
	struct blk_chan *below;
};

static int pass_chan_open(struct blk_chan *chan, struct err *err)
{
	struct pass_chan *c = container_of(chan, struct pass_chan, chan);

	return blk_chan_open_below(chan, chan->node->file, &c->below, err);
}

static void pass_chan_close(struct blk_chan *chan)
{
	blk_chan_close(container_of(chan, struct pass_chan, chan)->below);
}

static void pass_submit(struct blk_chan *chan, struct blk_req *r)
{
	blk_forward(container_of(chan, struct pass_chan, chan)->below, r, r->off);
}

static void pass_close(struct blk_node *n)
{
	(void)n;
}

static int pass_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc,
			 struct err *err)
{
	return blk_truncate(n->file, size, prealloc, err);
}

static void pass_over(struct blk_node *n, struct blk_node *child)
{
	blk_info_from(n, child);
	n->follows = child;
	n->can_grow = child->can_grow;
}

static int witness_open(struct blk_node *n, struct opts *o, struct err *err)
{
	struct blk_node *child;
	struct blk_io *io;
	int r = blk_open_child(n, o, "file", true, &child, err);

	r = r ? r : opts_check_used(o, err);
	if (r) {
		return r;
	}
	pass_over(n, child);
	seen.size = blk_size(child);
	seen.first = must(malloc(seen.size));
	r = blk_io_open(child, &io, err);
	if (!r) {
		r = blk_io_read(io, 0, seen.first, seen.size);
		blk_io_close(io);
	}
	return r;
}

static void witness_submit(struct blk_chan *chan, struct blk_req *r)
{
	if (r->op != BLK_READ && r->op != BLK_STATUS) {
		entry_add(r);
	}
	pass_submit(chan, r);
}

static void witness_ended(struct blk_chan *chan, struct blk_req *r, int result)
{
	(void)chan;
	if (r->op != BLK_READ && r->op != BLK_STATUS) {
		entry_end(r, result);
	}
}

struct power_options {
	char *filename;
};
static const struct opt_desc power_rows[] = {
	{"filename", OPT_STR, offsetof(struct power_options, filename), .required = true},
	{.key = NULL},
};

static int power_open(struct blk_node *n, struct opts *o, struct err *err)
{
	struct power_options c = {.filename = NULL};
	struct blk_node *journal;
	struct stat st = {0};
	uint8_t *data = NULL;
	int fd, r = opts_read(o, power_rows, &c, err);

	if (r) {
		return r;
	}
	fd = open(c.filename, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && !fstat(fd, &st)) {
		data = must(malloc((size_t)st.st_size + 1));
	}
	if (!data || pread(fd, data, (size_t)st.st_size, 0) != st.st_size) {
		r = err_set(err, EIO, "%s cannot be read", c.filename);
	}
	r = r ? r : blk_journal_new(NULL, data, (uint64_t)st.st_size, &journal, &seen.journal);
	r = r ? r : blk_add_child(n, "file", journal, err);
	if (!r) {
		pass_over(n, journal);
	}
	close(fd);
	free(data);
	free(c.filename);
	return r;
}

static const struct blk_driver witness_driver = {
	.name = "witness",
	.node_size = sizeof(struct blk_node),
	.chan_size = sizeof(struct pass_chan),
	.open = witness_open,
	.close = pass_close,
	.chan_open = pass_chan_open,
	.chan_close = pass_chan_close,
	.submit = witness_submit,
	.ended = witness_ended,
	.truncate = pass_truncate,
};
static const struct blk_driver power_driver = {
	.name = "power",
	.node_size = sizeof(struct blk_node),
	.chan_size = sizeof(struct pass_chan),
	.open = power_open,
	.close = pass_close,
	.chan_open = pass_chan_open,
	.chan_close = pass_chan_close,
	.submit = pass_submit,
	.truncate = pass_truncate,
};
static const struct blk_driver *const drivers[] = {&blk_raw_driver,   &blk_file_driver,
						   &blk_qcow2_driver, &blk_null_driver,
						   &witness_driver,   &power_driver};

const struct blk_driver *blk_driver_nth(unsigned i)
{
	return i < ARRAY_SIZE(drivers) ? drivers[i] : NULL;
}

const struct blk_driver *blk_driver_find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(drivers); i++) {
		if (!strcmp(drivers[i]->name, name)) {
			return drivers[i];
		}
	}
	return NULL;
}

/* --- after the loss of power --- */

/* What an entry leaves in the sector at `at`; NULL: zeros. */
static const uint8_t *left_by(const struct entry *e, uint64_t at)
{
	return e->op == BLK_WRITE ? e->data + (at - e->off) : NULL;
}

static bool is(const uint8_t *sector, const uint8_t *data)
{
	static const uint8_t zeros[SECTOR];

	return !memcmp(sector, data ? data : zeros, SECTOR);
}

static bool covers(const struct entry *e, uint64_t at)
{
	return e->op != BLK_FLUSH && at >= e->off && at - e->off < e->len;
}

/* The flush that tells what has to be there at that moment: the last one to begin of those that were
 * acknowledged by then. Its place in the order, 0: there is none. */
static unsigned flush_before(unsigned moment)
{
	unsigned began = 0;

	for (size_t i = 0; i < seen.count; i++) {
		const struct entry *e = &seen.entry[i];

		if (e->op == BLK_FLUSH && e->ended && e->ended_at <= moment) {
			began = MAX(began, e->began);
		}
	}
	return began;
}

/* For each sector the last entry that has to be there, plus one; 0: what was there at first. A discard
 * may leave what was there. */
static void base_of(unsigned *base, unsigned moment)
{
	unsigned flush = flush_before(moment);

	memset(base, 0, seen.size / SECTOR * sizeof(*base));
	for (size_t i = 0; i < seen.count; i++) {
		const struct entry *e = &seen.entry[i];
		bool durable =
			e->ended && (e->ended < flush || (e->fua && e->ended_at <= moment));

		if (!durable || e->op == BLK_DISCARD || e->op == BLK_FLUSH) {
			continue;
		}
		for (uint64_t at = e->off; at < e->off + e->len; at += SECTOR) {
			base[at / SECTOR] = (unsigned)i + 1;
		}
	}
}

static bool sector_ok(const uint8_t *sector, uint64_t at, unsigned base, unsigned moment)
{
	if (base ? is(sector, left_by(&seen.entry[base - 1], at))
		 : is(sector, seen.first + at)) {
		return true;
	}
	for (size_t i = base; i < seen.count; i++) {
		const struct entry *e = &seen.entry[i];

		if (covers(e, at) && e->began_at <= moment && is(sector, left_by(e, at))) {
			return true;
		}
	}
	return false;
}

static struct q2 *engine(struct blk_node *n, struct blk_io *io, bool read_only, struct err *err)
{
	struct q2_config cfg = {.name = "image",
				.file = io,
				.file_size = blk_size(n),
				.file_grows = !read_only,
				.read_only = read_only};
	struct q2_header h;
	struct q2 *q = NULL;

	q2_options_default(&cfg.opt);
	if (q2_header_read(io, cfg.file_size, "image", &h, err) == 0) {
		q2_open(&cfg, &h, &q, err);
	}
	q2_header_fini(&h);
	return q;
}

static int content_check(struct q2 *q, const struct blk_crash *c, struct err *err)
{
	unsigned *base = must(malloc(seen.size / SECTOR * sizeof(*base)));
	uint8_t *now = must(malloc(seen.size));
	int r = q2_read_buf(q, 0, now, seen.size);

	if (r < 0) {
		err_set(err, -r, "the image cannot be read: %s", strerror(-r));
	}
	base_of(base, c->at);
	for (uint64_t at = 0; at < seen.size && !r; at += SECTOR) {
		if (!sector_ok(now + at, at, base[at / SECTOR], c->at)) {
			r = err_set(err, EILSEQ,
				    "sector %llu holds neither what was flushed nor "
				    "what was written since",
				    (unsigned long long)(at / SECTOR));
		}
	}
	free(base);
	free(now);
	return r;
}

static int judge(const uint8_t *data, uint64_t size, const struct blk_crash *c, struct err *err)
{
	struct blk_check check;
	struct blk_node *n;
	struct blk_io *io;
	uint8_t *copy;
	struct q2 *q;
	int r = blk_mem_new("crashed", MAX(size, SECTOR), &n, &copy);

	if (r) {
		return err_set(err, -r, "out of memory");
	}
	memcpy(copy, data, size);
	n->beyond = n->grow = true; /* as below a format */
	r = blk_io_open(n, &io, err);
	if (r) {
		blk_unref(n);
		return r;
	}
	/* one with the dirty bit is repaired, as by everybody who opens it */
	q = engine(n, io, !(data[7] == 3 && data[79] & QCOW2_INCOMPAT_DIRTY), err);
	r = q ? q2_check(q, &check, 0, err) : -EIO;
	if (!r && (check.corruptions || check.check_errors)) {
		r = err_set(err, EILSEQ, "%llu corruptions",
			    (unsigned long long)check.corruptions);
	}
	r = r ? r : content_check(q, c, err);
	q2_abandon(q);
	blk_io_close(io);
	blk_unref(n);
	return r;
}

static int image_save(const char *dir, unsigned number, const uint8_t *data, uint64_t size)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/crash-%u.qcow2", dir, number);
	f = fopen(path, "wb");
	return f && fwrite(data, 1, size, f) == size && !fclose(f) ? 0 : -EIO;
}

static int judge_all(unsigned images, unsigned seed, const char *dir, struct err *err)
{
	unsigned now = blk_journal_now(seen.journal), flushes = 0;
	int r = 0;

	for (unsigned i = 0; i < images && !r; i++) {
		struct blk_crash c = {.unsynced = i % 4 == 0   ? BLK_CRASH_LOSE
						  : i % 4 == 1 ? BLK_CRASH_KEEP
							       : BLK_CRASH_SOME};
		struct err why = {0};
		uint64_t size;
		uint8_t *data;

		c.at = (unsigned)rand_r(&seed) % (now + 1);
		c.seed = (unsigned)rand_r(&seed);
		if (blk_journal_image(seen.journal, &c, &data, &size)) {
			return err_set(err, ENOMEM, "out of memory");
		}
		r = judge(data, size, &c, &why);
		if (r) {
			err_set(err, -r, "moment %u of %u, mode %d, seed %llu: %s", c.at, now,
				(int)c.unsynced, (unsigned long long)c.seed, why.msg);
		}
		if ((r || i % 16 == 2) && image_save(dir, i, data, size)) {
			r = r ? r : err_set(err, EIO, "no image could be written to %s", dir);
		}
		free(data);
	}
	for (size_t i = 0; i < seen.count; i++) {
		flushes += seen.entry[i].op == BLK_FLUSH && seen.entry[i].ended;
	}
	printf("moments=%u requests=%zu flushes=%u images=%u\n", now, seen.count, flushes,
	       images);
	return r;
}

/* --- the machine --- */

struct tool {
	struct vm_config cfg;
	struct loop *loop;
	struct machine *m;
	struct loop_timer timer;
	unsigned moments;
	bool stopped, ended;
};

static void on_stopped(void *opaque)
{
	((struct tool *)opaque)->stopped = true;
}

static void on_end(void *opaque)
{
	((struct tool *)opaque)->ended = true;
}

static void on_timer(void *opaque)
{
	struct tool *t = opaque;

	if (blk_journal_now(seen.journal) < t->moments) {
		loop_timer_arm(&t->timer, loop_now_ns(t->loop) + POLL_NS);
	} else {
		machine_stop(t->m, on_stopped, t);
	}
}

static int run(struct tool *t, struct err *err)
{
	struct machine_env env = {0};
	uint64_t end;
	int r = loop_new(&t->loop, "crash", 0);

	if (r) {
		return err_set(err, -r, "cannot make the control loop");
	}
	r = machine_new(t->loop, &t->cfg, &env, &t->m, err);
	if (!r && !(seen.journal && seen.first)) {
		r = err_set(err, EINVAL,
			    "there is no disk with driver=witness and driver=power");
	}
	if (r) {
		return r;
	}
	machine_on_quit(t->m, on_end, t);
	r = machine_start(t->m, err);
	end = loop_now_ns(t->loop) + LIMIT_S * UINT64_C(1000000000);
	loop_timer_init(t->loop, &t->timer, on_timer, t);
	loop_timer_arm(&t->timer, loop_now_ns(t->loop) + POLL_NS);
	while (!r && !t->stopped && !t->ended) {
		loop_step(t->loop, 1000);
		if (loop_now_ns(t->loop) > end) {
			r = err_set(err, ETIMEDOUT, "the disk has seen %u moments in %d s",
				    blk_journal_now(seen.journal), LIMIT_S);
		}
	}
	loop_timer_disarm(&t->timer);
	if (!r && (t->ended || seen.failed)) {
		r = err_set(err, EIO, t->ended ? "the guest ended" : "a request failed");
	}
	return r;
}

int main(int argc, char **argv)
{
	struct tool t = {0};
	enum cli_result what;
	struct err err = {0};
	int r;

	if (argc < 7 || strcmp(argv[5], "--")) {
		fprintf(stderr, "crash_tool: give MOMENTS IMAGES SEED DIR, then -- and nemu's "
				"options\n");
		return 1;
	}
	t.moments = (unsigned)strtoul(argv[1], NULL, 10);
	r = cli_parse(argc - 5, argv + 5, &t.cfg, &what, &err);
	r = r ? r : run(&t, &err);
	log_set_level(LOG_ERR); /* what repairs say is not of interest here */
	if (!r) {
		r = judge_all((unsigned)strtoul(argv[2], NULL, 10),
			      (unsigned)strtoul(argv[3], NULL, 10), argv[4], &err);
	}
	machine_free(t.m);
	loop_free(t.loop);
	if (r) {
		fprintf(stderr, "crash_tool: %s\n", err.msg);
	}
	for (size_t i = 0; i < seen.count; i++) {
		free(seen.entry[i].data);
	}
	free(seen.entry);
	free(seen.first);
	vm_config_fini(&t.cfg);
	return r != 0;
}
