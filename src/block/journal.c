/*
 * The disk of journal.h. Everything it remembers is under `lock`; tests alone use it, so it may
 * copy, lock and allocate as it likes.
 */
#include "block/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR	 512
#define MAX_SIZE (4 * GiB)

struct entry {
	enum { ENTRY_DATA, ENTRY_ZERO, ENTRY_TRUNCATE, ENTRY_FLUSH } kind;
	uint64_t off, len;
	uint8_t *data;
	unsigned began, ended; /* moments; ended 0: not yet */
	bool fua;
};

struct blk_journal {
	struct blk_node node;
	pthread_mutex_t lock;
	uint8_t *base, *data; /* as it began, as it is */
	uint64_t base_size, size, room;
	struct entry *entry;
	size_t count;
	unsigned now;
};

struct journal_chan {
	struct blk_chan chan;
	struct list ending;
	struct loop_work work;
};

static struct blk_journal *of_node(struct blk_node *n)
{
	return container_of(n, struct blk_journal, node);
}

/* --- recording; lock held --- */

static bool room_for(struct blk_journal *j, uint64_t size)
{
	uint64_t room = j->room ? j->room : SECTOR;
	uint8_t *p;

	if (size > MAX_SIZE) {
		return false;
	}
	while (room < size) {
		room *= 2;
	}
	if (room > j->room) {
		p = realloc(j->data, room);
		if (!p) {
			return false;
		}
		memset(p + j->room, 0, room - j->room);
		j->data = p;
		j->room = room;
	}
	return true;
}

static struct entry *entry_new(struct blk_journal *j, int kind, uint64_t off, uint64_t len)
{
	struct entry *e = reallocarray(j->entry, j->count + 1, sizeof(*e));

	if (!e) {
		return NULL;
	}
	j->entry = e;
	e += j->count;
	*e = (struct entry){.kind = kind, .off = off, .len = len};
	if (kind == ENTRY_DATA) {
		e->data = malloc(len);
		if (!e->data) {
			return NULL;
		}
	}
	e->began = ++j->now;
	j->count++;
	return e;
}

static int record(struct blk_journal *j, struct blk_req *r)
{
	int kind = r->op == BLK_WRITE	? ENTRY_DATA
		   : r->op == BLK_FLUSH ? ENTRY_FLUSH
					: ENTRY_ZERO;
	struct entry *e;

	if (r->op != BLK_FLUSH && !room_for(j, r->off + r->len)) {
		return -ENOSPC;
	}
	e = entry_new(j, kind, r->off, r->len);
	if (!e) {
		return -ENOMEM;
	}
	e->fua = r->flags & BLK_FUA;
	r->progress = j->count; /* which one it is, from 1 */
	if (kind == ENTRY_DATA) {
		iov_cur_read(&r->cur, e->data, r->len);
		memcpy(j->data + r->off, e->data, r->len);
	} else if (kind == ENTRY_ZERO) {
		memset(j->data + r->off, 0, r->len);
	}
	if (kind != ENTRY_FLUSH && r->off + r->len > j->size) {
		j->size = r->off + r->len;
		blk_grown(&j->node, j->size);
	}
	return 0;
}

/* --- requests --- */

static void requests_end(void *arg)
{
	struct journal_chan *c = arg;
	struct blk_journal *j = of_node(c->chan.node);

	/* What a done() submits is behind: it ends in this round, too. */
	while (!list_empty(&c->ending)) {
		struct blk_req *r = list_entry(c->ending.next, struct blk_req, node);

		list_del(&r->node);
		if (r->progress) {
			pthread_mutex_lock(&j->lock);
			j->entry[r->progress - 1].ended = ++j->now;
			pthread_mutex_unlock(&j->lock);
		}
		blk_complete(r, r->result);
	}
}

static void journal_submit(struct blk_chan *chan, struct blk_req *r)
{
	struct journal_chan *c = container_of(chan, struct journal_chan, chan);
	struct blk_journal *j = of_node(chan->node);

	pthread_mutex_lock(&j->lock);
	if (r->op == BLK_READ) {
		iov_cur_write(&r->cur, j->data + r->off, r->len);
	} else if (r->op == BLK_STATUS) {
		r->status = (struct blk_extent){
			.len = r->len,
			.flags = BLK_EXT_DATA | BLK_EXT_ALLOCATED | BLK_EXT_OFFSET,
			.file = chan->node,
			.file_off = r->off,
		};
	} else {
		r->result = record(j, r);
	}
	pthread_mutex_unlock(&j->lock);
	list_add_tail(&c->ending, &r->node);
	loop_post(chan->loop, &c->work);
}

static int journal_chan_open(struct blk_chan *chan, struct err *err)
{
	struct journal_chan *c = container_of(chan, struct journal_chan, chan);

	(void)err;
	list_init(&c->ending);
	c->work = (struct loop_work){.fn = requests_end, .arg = c};
	return 0;
}

static void journal_chan_close(struct blk_chan *chan)
{
	loop_work_cancel(chan->loop, &container_of(chan, struct journal_chan, chan)->work);
}

/* --- the node --- */

static int journal_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc,
			    struct err *err)
{
	struct blk_journal *j = of_node(n);
	struct entry *e = NULL;

	(void)prealloc;
	pthread_mutex_lock(&j->lock);
	if (room_for(j, size)) {
		e = entry_new(j, ENTRY_TRUNCATE, size, 0);
	}
	if (e) {
		e->ended = ++j->now;
		if (size < j->size) {
			memset(j->data + size, 0, j->size - size);
		}
		j->size = size;
		blk_set_size(n, size);
	}
	pthread_mutex_unlock(&j->lock);
	return e ? 0 : err_set(err, ENOSPC, "disk '%s' has no room", n->name);
}

static void journal_close(struct blk_node *n)
{
	struct blk_journal *j = of_node(n);

	for (size_t i = 0; i < j->count; i++) {
		free(j->entry[i].data);
	}
	free(j->entry);
	free(j->base);
	free(j->data);
	pthread_mutex_destroy(&j->lock);
}

static const struct blk_driver journal_driver = {
	.name = "journal",
	.node_size = sizeof(struct blk_journal),
	.chan_size = sizeof(struct journal_chan),
	.protocol = true,
	.chan_open = journal_chan_open,
	.chan_close = journal_chan_close,
	.submit = journal_submit,
	.close = journal_close,
	.truncate = journal_truncate,
};

int blk_journal_new(const char *name, const void *base, uint64_t size, struct blk_node **out,
		    struct blk_journal **journal)
{
	struct blk_journal *j = calloc(1, sizeof(*j));

	if (!j) {
		return -ENOMEM;
	}
	j->base = calloc(1, size ? size : 1);
	if (!j->base || !room_for(j, size)) {
		free(j->base);
		free(j);
		return -ENOMEM;
	}
	if (base && size) {
		memcpy(j->base, base, size);
		memcpy(j->data, base, size);
	}
	j->base_size = j->size = size;
	pthread_mutex_init(&j->lock, NULL);
	blk_node_init(&j->node, &journal_driver, name, 3);
	j->node.can_grow = true;
	j->node.info = (struct blk_info){
		.size = size,
		.block_size = SECTOR,
		.align = 1,
		.discard_granularity = SECTOR,
		.can_discard = true,
		.can_zero = true,
		.write_cache = true,
		.resizable = true,
	};
	*out = &j->node;
	*journal = j;
	return 0;
}

int blk_journal_open(struct blk_graph *g, const char *name, const void *base, uint64_t size,
		     struct blk_node **out, struct blk_journal **j)
{
	int r = blk_journal_new(name, base, size, out, j);

	if (!r) {
		r = blk_graph_add(g, *out, NULL);
		if (r) {
			blk_unref(*out);
		}
	}
	return r;
}

/* --- after the loss of power --- */

unsigned blk_journal_now(struct blk_journal *j)
{
	unsigned now;

	pthread_mutex_lock(&j->lock);
	now = j->now;
	pthread_mutex_unlock(&j->lock);
	return now;
}

/* The begin of the last flush that has ended at that moment; 0: none. */
static unsigned last_flush(const struct blk_journal *j, unsigned at)
{
	unsigned last = 0;

	for (size_t i = 0; i < j->count; i++) {
		const struct entry *e = &j->entry[i];

		if (e->kind == ENTRY_FLUSH && e->ended && e->ended <= at) {
			last = MAX(last, e->began);
		}
	}
	return last;
}

static bool durable(const struct entry *e, unsigned at, unsigned flush)
{
	return e->ended && (e->ended < flush || (e->fua && e->ended <= at));
}

unsigned blk_journal_unsynced(struct blk_journal *j, unsigned at)
{
	unsigned n = 0, flush;

	pthread_mutex_lock(&j->lock);
	flush = last_flush(j, at);
	for (size_t i = 0; i < j->count; i++) {
		const struct entry *e = &j->entry[i];

		n += e->kind != ENTRY_FLUSH && e->began <= at && !durable(e, at, flush);
	}
	pthread_mutex_unlock(&j->lock);
	return n;
}

static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static bool kept(const struct blk_crash *c, unsigned write, uint64_t sector)
{
	uint64_t whole;

	if (c->keep) {
		return c->keep(c->opaque, write, sector);
	}
	if (c->unsynced != BLK_CRASH_SOME) {
		return c->unsynced == BLK_CRASH_KEEP;
	}
	whole = mix(c->seed ^ mix(write + 1));
	switch (whole % 4) {
	case 0:
	case 1:
		return whole % 4;
	default: /* torn or whole */
		return whole % 8 == 2 || mix(whole ^ sector) % 2;
	}
}

/* What of an entry is on the disk. */
static void apply(const struct blk_crash *c, const struct entry *e, unsigned write, bool safe,
		  uint8_t *data, uint64_t *size)
{
	if (e->kind == ENTRY_TRUNCATE) {
		if (safe || kept(c, write, 0)) {
			memset(data + e->off, 0, e->off < *size ? *size - e->off : 0);
			*size = e->off;
		}
		return;
	}
	for (uint64_t off = e->off, n; off < e->off + e->len; off += n) {
		n = MIN(SECTOR - off % SECTOR, e->off + e->len - off);
		if (!safe && !kept(c, write, off / SECTOR)) {
			continue;
		}
		if (e->kind == ENTRY_DATA) {
			memcpy(data + off, e->data + (off - e->off), n);
		} else {
			memset(data + off, 0, n);
		}
		*size = MAX(*size, off + n);
	}
}

int blk_journal_image(struct blk_journal *j, const struct blk_crash *c, uint8_t **out,
		      uint64_t *size)
{
	unsigned flush, write = 0;
	uint8_t *data;

	pthread_mutex_lock(&j->lock);
	data = calloc(1, j->room ? j->room : 1);
	if (data) {
		memcpy(data, j->base, j->base_size);
		*size = j->base_size;
		flush = last_flush(j, c->at);
		for (size_t i = 0; i < j->count && j->entry[i].began <= c->at; i++) {
			const struct entry *e = &j->entry[i];

			if (e->kind != ENTRY_FLUSH) {
				apply(c, e, write++, durable(e, c->at, flush), data, size);
			}
		}
	}
	pthread_mutex_unlock(&j->lock);
	*out = data;
	return data ? 0 : -ENOMEM;
}
