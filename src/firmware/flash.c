/*
 * Flash for UEFI variables, with its content in a file: what does not depend on the chip. Commands
 * are in flash_cfi.c; flash_open.c opens and maps. Without a file (fd -1) the
 * content lasts as long as the machine.
 *
 * Reads of the array never exit: the region is a read-only slot ("direct"). Only while status,
 * identifier or query are to be read is the slot taken away. Writes always exit.
 *
 * What reaches the file, and when
 *  - Host memory holds the array; the file follows. Each change puts the whole 4 KiB block into
 *    a queue; consecutive changes of one block share an entry. The control loop writes entries
 *    to the file, in order, each one durably (O_DSYNC) before the next.
 *  - So at every moment, also after a power loss or kill -9, the file holds what the flash held
 *    after some prefix of the guest's operations, provided that the host writes an aligned 4 KiB
 *    block whole (file systems with 4 KiB blocks do). That is what real flash guarantees when
 *    power fails, and what firmware's variable store is made for.
 *  - The delay is DELAY_NS plus the time of the writes queued; pause (stop, save) and
 *    destruction (exit) write everything first.
 *  - A failed write is retried every RETRY_NS and reported once a streak; what the guest sees is
 *    not affected, what is still queued at exit is lost and reported.
 *
 * Invariants
 *  1. The region is direct exactly if mode is FLASH_ARRAY, once the control loop has been there
 *     (flash_mode_apply()); in between, trapped reads in FLASH_ARRAY mode are answered from host memory.
 *  2. An entry being written (`writing`) is not changed any more.
 *  3. queue holds the blocks in which file and host memory differ, in the order of the changes.
 *
 * Threads and locks: accesses run on vCPU threads, because firmware programs byte after byte and
 * a round trip for each would cost seconds; `lock` guards commands, array writes and queue. Slot
 * changes and file writes happen on the control loop only; a vCPU that needs one waits for it
 * with the lock released. mode, status and array bytes are read without the lock.
 * Untrusted: the guest; the file, whose content is never interpreted here, only its size is.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "core/bus.h"
#include "core/device.h"
#include "event/loop.h"
#include "firmware/flash_int.h"
#include "mem/mem.h"

#define BLOCK	 FLASH_BLOCK
#define QUEUE	 FLASH_QUEUE
#define DELAY_NS UINT64_C(10000000)
#define RETRY_NS UINT64_C(1000000000)

/* --- the queue and the file --- */

/* One aligned block. #syscalls(main): pwrite64 */
static int block_write(struct flash *f, const struct entry *e)
{
	size_t done = 0;

	while (done < BLOCK) {
		ssize_t n = pwrite(f->fd, e->data + done, BLOCK - done,
				   (off_t)e->block * BLOCK + (off_t)done);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return n ? -errno : -EIO;
		}
		done += (size_t)n;
	}
	return 0;
}

/* Writes the oldest entry. 0, 1 if there is none, or -errno. Control loop. */
static int queue_write_one(struct flash *f)
{
	struct entry *e = NULL;
	int ret;

	pthread_mutex_lock(&f->lock);
	if (f->count) {
		e = f->queue[f->head];
		f->writing = true; /* invariant 2 */
	}
	pthread_mutex_unlock(&f->lock);
	if (!e) {
		return 1;
	}
	ret = block_write(f, e);
	if (ret && !f->failing) {
		log_err(f->dev.id, "cannot write %s: %s; trying again every second", f->path,
			strerror(-ret));
	}
	f->failing = ret != 0;
	if (!ret) {
		pthread_mutex_lock(&f->lock);
		f->head = (f->head + 1) % QUEUE;
		f->count--;
		f->writing = false;
		pthread_mutex_unlock(&f->lock);
	}
	return ret;
}

/* Everything, now. Control loop. 0 or -errno. */
static int queue_flush(struct flash *f)
{
	int ret;

	do {
		ret = queue_write_one(f);
	} while (!ret);
	if (ret > 0) {
		loop_timer_disarm(&f->timer);
	}
	return MIN(ret, 0);
}

static void timer_fn(void *opaque)
{
	struct flash *f = opaque;
	int ret = queue_write_one(f);

	if (ret < 0) {
		loop_timer_arm(&f->timer, loop_now_ns(f->vm->loop) + RETRY_NS);
	} else if (!ret) {
		/* one entry a round, so that others get their turn between durable writes */
		loop_timer_arm(&f->timer, loop_now_ns(f->vm->loop));
	}
}

static void arm_fn(void *opaque)
{
	struct flash *f = opaque;

	if (!f->timer.armed) {
		loop_timer_arm(&f->timer, loop_now_ns(f->vm->loop) + DELAY_NS);
	}
}

static void make_room(void *opaque)
{
	queue_write_one(opaque);
}

/*
 * The entry that a change of the block goes to: the youngest one if it is for the same block, or
 * a new one. NULL if the queue is full or memory is out.
 */
static struct entry *queue_entry_locked(struct flash *f, uint32_t block)
{
	unsigned at = (f->head + f->count) % QUEUE;

	if (f->count) {
		unsigned last = (f->head + f->count - 1) % QUEUE;

		if (f->queue[last]->block == block && !(f->count == 1 && f->writing)) {
			return f->queue[last];
		}
	}
	if (f->count == QUEUE) {
		return NULL;
	}
	if (!f->queue[at]) {
		f->queue[at] = malloc(sizeof(struct entry));
		if (!f->queue[at]) {
			return NULL;
		}
	}
	f->queue[at]->block = block;
	memcpy(f->queue[at]->data, f->array + (size_t)block * BLOCK, BLOCK);
	f->count++;
	if (f->count == 1) {
		loop_post(f->vm->loop, &f->arm_work);
	}
	return f->queue[at];
}

/* --- changing the array --- */

static void array_set(uint8_t *p, uint8_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELAXED);
}

static uint8_t array_get(const uint8_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

/*
 * Programs (data and-ed in) or, without data, erases (0xff) what lies in one block. When the
 * queue is full the vCPU waits until the oldest entry is in the file; when that cannot be
 * written the operation fails, as it does on worn-out flash.
 */
static bool array_change(struct flash *f, uint32_t off, uint32_t len, const uint8_t *data)
{
	struct entry *e;
	bool same = true;

	for (int attempt = 0; attempt < 2; attempt++) {
		for (uint32_t i = 0; i < len && same; i++) {
			uint8_t old = f->array[off + i];

			same = (data ? (uint8_t)(old & data[i]) : 0xff) == old;
		}
		if (same) {
			return true;
		}
		e = f->fd < 0 ? NULL : queue_entry_locked(f, off / BLOCK);
		if (e || f->fd < 0) {
			for (uint32_t i = 0; i < len; i++) {
				uint8_t v = data ? f->array[off + i] & data[i] : 0xff;

				array_set(&f->array[off + i], v);
				if (e) {
					e->data[(off + i) % BLOCK] = v;
				}
			}
			return true;
		}
		pthread_mutex_unlock(&f->lock);
		loop_call(f->vm->loop, make_room, f);
		pthread_mutex_lock(&f->lock);
	}
	return false;
}

bool flash_program_locked(struct flash *f, uint32_t off, const uint8_t *data, unsigned len)
{
	return array_change(f, off, len, data);
}

bool flash_erase_locked(struct flash *f, uint32_t off, uint32_t len)
{
	bool ok = true;

	for (uint32_t at = 0; at < len; at += BLOCK) {
		ok = array_change(f, off + at, BLOCK, NULL) && ok;
	}
	return ok;
}

uint8_t flash_byte(const struct flash *f, uint64_t off)
{
	return array_get(&f->array[off]);
}

/* --- commands --- */

/* Invariant 1, on the control loop. */
void flash_mode_apply(void *opaque)
{
	struct flash *f = opaque;
	bool direct = atomic_load(&f->mode) == FLASH_ARRAY;
	int ret;

	if (direct == f->direct) {
		return;
	}
	ret = mem_region_set_direct(f->vm->mem, f->rom, direct);
	if (ret) {
		log_guest(f->dev.id, "cannot change the memory slot: %s", strerror(-ret));
		return; /* reads still trap and are answered */
	}
	f->direct = direct;
}

/* --- state: the content travels with it, the file of the other side follows --- */

struct flash_state {
	uint8_t mode, status, pending;
	uint32_t size;
	uint8_t content[NEMU_FLASH_MAX]; /* of the build: differs by architecture */
};
static const struct state_desc flash_desc = {
	.name = "flash",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct flash_state),
	.fields =
		(const struct state_field[]){
			STATE_F_RANGE(STATE_U8, struct flash_state, mode, 0, FLASH_MODES - 1),
			STATE_F_U8(struct flash_state, status),
			STATE_F_U8(struct flash_state, pending),
			STATE_F_BUF(struct flash_state, content, size),
			STATE_F_END,
		},
};

static int flash_save(struct device *d, void *p, struct err *err)
{
	struct flash *f = container_of(d, struct flash, dev);
	struct flash_state *st = p;

	st->mode = atomic_load(&f->mode);
	st->status = atomic_load(&f->status);
	st->pending = f->pending;
	st->size = f->size;
	memcpy(st->content, f->array, f->size);
	return 0;
}

static int flash_load(struct device *d, const void *p, struct err *err)
{
	struct flash *f = container_of(d, struct flash, dev);
	const struct flash_state *st = p;

	if (st->size != f->size) {
		return err_set(err, EINVAL,
			       "the state has a flash of %u bytes, %s has %u; use a "
			       "copy of the same file",
			       st->size, f->path, f->size);
	}
	if (st->pending > flash_max_pending()) {
		return err_set(err, EINVAL, "the state has a flash with an unknown command");
	}
	for (uint32_t block = 0; block < f->size / BLOCK; block++) {
		size_t off = (size_t)block * BLOCK;
		struct entry *e;
		int ret = 0;

		if (!memcmp(f->array + off, st->content + off, BLOCK)) {
			continue;
		}
		if (f->fd < 0) {
			memcpy(f->array + off, st->content + off, BLOCK);
			continue;
		}
		pthread_mutex_lock(&f->lock);
		e = queue_entry_locked(f, block);
		pthread_mutex_unlock(&f->lock);
		if (!e) {
			ret = queue_flush(f);
			pthread_mutex_lock(&f->lock);
			e = ret ? NULL : queue_entry_locked(f, block);
			pthread_mutex_unlock(&f->lock);
		}
		if (!e) {
			return err_set(err, ret ? -ret : ENOMEM, "cannot write %s: %s", f->path,
				       strerror(ret ? -ret : ENOMEM));
		}
		memcpy(f->array + off, st->content + off, BLOCK);
		memcpy(e->data, st->content + off, BLOCK);
	}
	f->pending = st->pending;
	atomic_store(&f->status, st->status);
	atomic_store(&f->mode, st->mode);
	flash_mode_apply(f);
	return 0;
}

/* --- life --- */

static void flash_reset(struct device *d)
{
	struct flash *f = container_of(d, struct flash, dev);

	pthread_mutex_lock(&f->lock);
	f->pending = 0;
	pthread_mutex_unlock(&f->lock);
	atomic_store(&f->status, 0);
	atomic_store(&f->mode, FLASH_ARRAY);
	flash_mode_apply(f);
}

static void flash_pause(struct device *d)
{
	struct flash *f = container_of(d, struct flash, dev);

	queue_flush(f); /* an error was logged; the timer goes on trying */
	device_paused(d);
}

/* Without the file. */
static void flash_free(struct flash *f)
{
	for (unsigned i = 0; i < QUEUE; i++) {
		free(f->queue[i]);
	}
	pthread_mutex_destroy(&f->lock);
	free(f->path);
	free(f);
}

/* #syscalls(main): close */
static void flash_destroy(struct device *d)
{
	struct flash *f = container_of(d, struct flash, dev);

	bus_del(f->vm->bus, &f->region);
	if (queue_flush(f)) {
		log_err(d->id,
			"%u changed blocks of 4 KiB are lost, %s is as it was before them",
			f->count, f->path);
	}
	loop_work_cancel(f->vm->loop, &f->arm_work);
	loop_timer_disarm(&f->timer);
	mem_region_del(f->vm->mem, f->rom);
	if (f->fd >= 0) {
		close(f->fd);
	}
	flash_free(f);
}

static void flash_resume(struct device *d)
{
	/* Nothing was held back. */
}

static const struct device_state_ops flash_state_ops = {
	.desc = &flash_desc,
	.save = flash_save,
	.load = flash_load,
};
static const struct device_ops flash_ops = {
	.name = "flash",
	.reset = flash_reset,
	.pause = flash_pause,
	.resume = flash_resume,
	.destroy = flash_destroy,
	.state = (const struct device_state_ops *const[]){&flash_state_ops, NULL},
};

int flash_device_new(struct vm *vm, const char *id, const char *path, int fd,
		     struct mem_region *rom, struct err *err)
{
	struct flash *f = calloc(1, sizeof(*f));
	int ret;

	if (!f || !(f->path = strdup(path))) {
		free(f);
		return err_set(err, ENOMEM, "no memory for the flash of %s", path);
	}
	f->vm = vm;
	f->fd = fd;
	f->size = (uint32_t)mem_region_size(rom);
	f->rom = rom;
	f->array = mem_region_host(rom);
	f->direct = true;
	pthread_mutex_init(&f->lock, NULL);
	loop_timer_init(vm->loop, &f->timer, timer_fn, f);
	f->arm_work = (struct loop_work){.fn = arm_fn, .arg = f};
	f->region = (struct bus_region){
		.name = "flash",
		.space = BUS_MMIO,
		.base = mem_region_gpa(rom),
		.size = f->size,
		.ops = &flash_chip.bus,
		.opaque = f,
	};
	ret = bus_add(vm->bus, &f->region);
	if (ret) {
		err_set(err, -ret,
			"the addresses at 0x%" PRIx64 " for the flash of %s are taken",
			mem_region_gpa(rom), path);
		goto free_flash;
	}
	ret = device_add(vm->devices, &f->dev, &flash_ops, id, err);
	if (ret) {
		goto del_region;
	}
	return 0;

del_region:
	bus_del(vm->bus, &f->region);
free_flash:
	flash_free(f);
	return ret;
}

void flash_device_undo(struct device *d)
{
	device_remove(d);
	flash_destroy(d);
}
