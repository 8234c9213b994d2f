/*
 * Flash for UEFI variables, with its content in a file. (flash_open.c opens and maps it.)
 *
 * Commands: Intel Extended Command Set, byte-wide, erase blocks of 4 KiB (JEDEC JESD68.01; Intel
 * StrataFlash J3 datasheet): 10/40 program a byte, 20 D0 erase, 50 clear status, 70 read status,
 * 90 read identifier, 98 CFI query, FF read array. Programming clears bits, as NOR flash does.
 * After program and erase the array is readable at once: OVMF goes on reading without asking for
 * the status or for the array (QemuFlash.c), and so the array need not leave its memory slot.
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
 *  1. The region is direct exactly if mode is ARRAY, once the control loop has been there
 *     (mode_apply()); in between, trapped reads in ARRAY mode are answered from host memory.
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
#include "firmware/trace.h"
#include "mem/mem.h"
#include "spec/cfi_flash.h"
#include "spec/platform_x86.h"

#define BLOCK	 FLASH_BLOCK
#define QUEUE	 64
#define DELAY_NS UINT64_C(10000000)
#define RETRY_NS UINT64_C(1000000000)

enum flash_mode { ARRAY, STATUS, IDENTIFIER, QUERY_TABLE, MODES };
enum pending { NONE, PROGRAM, ERASE, PENDINGS };

struct entry {
	uint32_t block;
	uint8_t data[BLOCK];
};

struct flash {
	struct device dev;
	struct vm *vm;
	char *path;
	int fd;
	uint32_t size;
	uint8_t *array; /* host memory of `rom` */
	struct mem_region *rom;
	struct bus_region region;

	_Atomic uint8_t mode; /* enum flash_mode */
	_Atomic uint8_t status;
	bool direct; /* control loop */

	pthread_mutex_t lock;
	enum pending pending;
	struct entry *queue[QUEUE]; /* ring; entries are allocated at first use and kept */
	unsigned head, count;
	bool writing; /* the entry at head */

	struct loop_work arm_work;
	struct loop_timer timer;
	bool failing; /* control loop */
};

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
 * Finishes a program (len 1, value and-ed in) or an erase (a block, value 0xff). When the queue
 * is full the vCPU waits until the oldest entry is in the file; when that cannot be written the
 * operation fails, as it does on worn-out flash.
 */
static bool array_change(struct flash *f, uint32_t off, uint32_t len, bool erase, uint8_t value)
{
	struct entry *e;
	bool same = true;

	for (int attempt = 0; attempt < 2; attempt++) {
		for (uint32_t i = 0; i < len && same; i++) {
			uint8_t old = f->array[off + i];

			same = (erase ? value : (uint8_t)(old & value)) == old;
		}
		if (same) {
			return true;
		}
		e = queue_entry_locked(f, off / BLOCK);
		if (e) {
			for (uint32_t i = 0; i < len; i++) {
				uint8_t v = erase ? value : f->array[off + i] & value;

				array_set(&f->array[off + i], v);
				e->data[(off + i) % BLOCK] = v;
			}
			return true;
		}
		pthread_mutex_unlock(&f->lock);
		loop_call(f->vm->loop, make_room, f);
		pthread_mutex_lock(&f->lock);
	}
	return false;
}

/* --- commands --- */

/* Invariant 1, on the control loop. */
static void mode_apply(void *opaque)
{
	struct flash *f = opaque;
	bool direct = atomic_load(&f->mode) == ARRAY;
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

static void status_error(struct flash *f)
{
	atomic_fetch_or(&f->status,
			CFI_STATUS_READY | CFI_STATUS_ERASE_ERROR | CFI_STATUS_PROGRAM_ERROR);
}

/* The first byte of a command. */
static void command_locked(struct flash *f, uint8_t cmd)
{
	switch (cmd) {
	case CFI_CMD_PROGRAM:
	case CFI_CMD_PROGRAM_ALT:
		f->pending = PROGRAM;
		break;
	case CFI_CMD_ERASE:
		f->pending = ERASE;
		break;
	case CFI_CMD_CLEAR_STATUS:
		atomic_store(&f->status, 0);
		break;
	case CFI_CMD_READ_STATUS:
		atomic_store(&f->mode, STATUS);
		break;
	case CFI_CMD_READ_ID:
		atomic_store(&f->mode, IDENTIFIER);
		break;
	case CFI_CMD_QUERY:
		atomic_store(&f->mode, QUERY_TABLE);
		break;
	case CFI_CMD_READ_ARRAY:
		atomic_store(&f->mode, ARRAY);
		break;
	default:
		status_error(f);
		atomic_store(&f->mode, ARRAY);
		break;
	}
}

static void flash_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct flash *f = opaque;
	enum pending pending;
	uint8_t v = (uint8_t)value;
	bool was_array, is_array;

	pthread_mutex_lock(&f->lock);
	was_array = atomic_load(&f->mode) == ARRAY;
	pending = f->pending;
	f->pending = NONE;
	trace_flash_write(f->dev.id, off, value, pending);
	switch (pending) {
	case PROGRAM:
		if (array_change(f, (uint32_t)off, 1, false, v)) {
			atomic_fetch_or(&f->status, CFI_STATUS_READY);
		} else {
			atomic_fetch_or(&f->status,
					CFI_STATUS_READY | CFI_STATUS_PROGRAM_ERROR);
		}
		atomic_store(&f->mode, ARRAY);
		break;
	case ERASE:
		if (v != CFI_CMD_CONFIRM) {
			status_error(f);
		} else if (array_change(f, (uint32_t)align_down(off, BLOCK), BLOCK, true,
					0xff)) {
			atomic_fetch_or(&f->status, CFI_STATUS_READY);
		} else {
			atomic_fetch_or(&f->status, CFI_STATUS_READY | CFI_STATUS_ERASE_ERROR);
		}
		atomic_store(&f->mode, ARRAY);
		break;
	default:
		command_locked(f, v);
		break;
	}
	is_array = atomic_load(&f->mode) == ARRAY;
	pthread_mutex_unlock(&f->lock);
	if (was_array != is_array) {
		loop_call(f->vm->loop, mode_apply, f);
	}
}

/* The table of the CFI query; offsets are those of the standard. */
static uint8_t query_byte(const struct flash *f, uint64_t off)
{
	static const uint8_t table[] = {
		[0x10] = 'Q',  [0x11] = 'R',  [0x12] = 'Y', [0x13] = 0x01, /* Intel Extended */
		[0x15] = 0x31,						   /* its table */
		[0x1b] = 0x27, [0x1c] = 0x36,				   /* 2.7 to 3.6 V */
		[0x1f] = 0x07,						   /* program: 2^7 us */
		[0x21] = 0x0a,						   /* erase: 2^10 ms */
		[0x23] = 0x04, [0x25] = 0x04, /* at most 2^4 times that */
		[0x2c] = 0x01,		      /* one erase region */
		[0x31] = 'P',  [0x32] = 'R',  [0x33] = 'I', [0x34] = '1',
		[0x35] = '1',  [0x40] = 0x00,
	};
	uint32_t blocks = f->size / BLOCK - 1;

	switch (off) {
	case 0x27: /* size: 2^n, rounded up */
		return (uint8_t)(64 - __builtin_clzll((uint64_t)f->size - 1));
	case 0x2d:
		return (uint8_t)blocks;
	case 0x2e:
		return (uint8_t)(blocks >> 8);
	case 0x2f:
		return (uint8_t)(BLOCK / 256);
	case 0x30:
		return (uint8_t)(BLOCK / 256 >> 8);
	default:
		return off < sizeof(table) ? table[off] : 0;
	}
}

static uint64_t flash_read(void *opaque, uint64_t off, unsigned size)
{
	struct flash *f = opaque;

	switch (atomic_load(&f->mode)) {
	case STATUS:
		return atomic_load(&f->status);
	case IDENTIFIER:
		return off == 0 ? CFI_INTEL_MANUFACTURER : off == 1 ? CFI_INTEL_J3_64MBIT : 0;
	case QUERY_TABLE:
		return query_byte(f, off);
	default:
		return array_get(&f->array[off]);
	}
}

static const struct bus_ops flash_bus_ops = {
	.read = flash_read,
	.write = flash_write,
	.min_size = 1,
	.max_size = 1, /* a byte-wide chip: the bus splits */
};

/* --- state: the content travels with it, the file of the other side follows --- */

struct flash_state {
	uint8_t mode, status, pending;
	uint32_t size;
	uint8_t content[PLAT_FLASH_MAX];
};
static const struct state_desc flash_desc = {
	.name = "flash",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct flash_state),
	.fields =
		(const struct state_field[]){
			STATE_F_RANGE(STATE_U8, struct flash_state, mode, 0, MODES - 1),
			STATE_F_U8(struct flash_state, status),
			STATE_F_RANGE(STATE_U8, struct flash_state, pending, 0, PENDINGS - 1),
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
	st->pending = (uint8_t)f->pending;
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
	for (uint32_t block = 0; block < f->size / BLOCK; block++) {
		size_t off = (size_t)block * BLOCK;
		struct entry *e;
		int ret = 0;

		if (!memcmp(f->array + off, st->content + off, BLOCK)) {
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
	f->pending = (enum pending)st->pending;
	atomic_store(&f->status, st->status);
	atomic_store(&f->mode, st->mode);
	mode_apply(f);
	return 0;
}

/* --- life --- */

static void flash_reset(struct device *d)
{
	struct flash *f = container_of(d, struct flash, dev);

	pthread_mutex_lock(&f->lock);
	f->pending = NONE;
	pthread_mutex_unlock(&f->lock);
	atomic_store(&f->status, 0);
	atomic_store(&f->mode, ARRAY);
	mode_apply(f);
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
	close(f->fd);
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
		.ops = &flash_bus_ops,
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
