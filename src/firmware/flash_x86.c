/*
 * The flash of the x86-64 machine, as OVMF programs it.
 *
 * Intel Extended Command Set, byte-wide, erase blocks of 4 KiB (JEDEC JESD68.01; Intel StrataFlash
 * J3 datasheet): 10/40 program a byte, 20 D0 erase, 50 clear status, 70 read status, 90 read
 * identifier, 98 CFI query, FF read array. Programming clears bits, as NOR flash does. After
 * program and erase the array is readable at once: OVMF goes on reading without asking for the
 * status or for the array (QemuFlash.c), and so the array need not leave its memory slot.
 *
 * Unit 0 ends at 4 GiB, the next stands directly below it. Threads and locks: flash.c.
 */
#include <stdatomic.h>

#include "event/loop.h"
#include "firmware/flash_int.h"
#include "firmware/trace.h"
#include "spec/cfi_flash.h"
#include "spec/platform_x86.h"

enum pending { NONE, PROGRAM, ERASE, PENDINGS };
const uint8_t flash_max_pending = PENDINGS - 1;

bool flash_place(unsigned unit, uint32_t size, uint64_t *next, uint64_t *gpa)
{
	uint64_t end = *next ? *next : PLAT_FLASH_END;

	if (size > PLAT_FLASH_MAX - (PLAT_FLASH_END - end)) {
		return false;
	}
	*next = *gpa = end - size;
	return true;
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
		atomic_store(&f->mode, FLASH_STATUS);
		break;
	case CFI_CMD_READ_ID:
		atomic_store(&f->mode, FLASH_IDENTIFIER);
		break;
	case CFI_CMD_QUERY:
		atomic_store(&f->mode, FLASH_QUERY_TABLE);
		break;
	case CFI_CMD_READ_ARRAY:
		atomic_store(&f->mode, FLASH_ARRAY);
		break;
	default:
		status_error(f);
		atomic_store(&f->mode, FLASH_ARRAY);
		break;
	}
}

static void flash_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct flash *f = opaque;
	uint8_t pending;
	uint8_t v = (uint8_t)value;
	bool was_array, is_array;

	pthread_mutex_lock(&f->lock);
	was_array = atomic_load(&f->mode) == FLASH_ARRAY;
	pending = f->pending;
	f->pending = NONE;
	trace_flash_write(f->dev.id, off, value, pending);
	switch (pending) {
	case PROGRAM:
		if (flash_program_locked(f, (uint32_t)off, &v, 1)) {
			atomic_fetch_or(&f->status, CFI_STATUS_READY);
		} else {
			atomic_fetch_or(&f->status,
					CFI_STATUS_READY | CFI_STATUS_PROGRAM_ERROR);
		}
		atomic_store(&f->mode, FLASH_ARRAY);
		break;
	case ERASE:
		if (v != CFI_CMD_CONFIRM) {
			status_error(f);
		} else if (flash_erase_locked(f, (uint32_t)align_down(off, FLASH_BLOCK),
					      FLASH_BLOCK)) {
			atomic_fetch_or(&f->status, CFI_STATUS_READY);
		} else {
			atomic_fetch_or(&f->status, CFI_STATUS_READY | CFI_STATUS_ERASE_ERROR);
		}
		atomic_store(&f->mode, FLASH_ARRAY);
		break;
	default:
		command_locked(f, v);
		break;
	}
	is_array = atomic_load(&f->mode) == FLASH_ARRAY;
	pthread_mutex_unlock(&f->lock);
	if (was_array != is_array) {
		loop_call(f->vm->loop, flash_mode_apply, f);
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
	uint32_t blocks = f->size / FLASH_BLOCK - 1;

	switch (off) {
	case 0x27: /* size: 2^n, rounded up */
		return (uint8_t)(64 - __builtin_clzll((uint64_t)f->size - 1));
	case 0x2d:
		return (uint8_t)blocks;
	case 0x2e:
		return (uint8_t)(blocks >> 8);
	case 0x2f:
		return (uint8_t)(FLASH_BLOCK / 256);
	case 0x30:
		return (uint8_t)(FLASH_BLOCK / 256 >> 8);
	default:
		return off < sizeof(table) ? table[off] : 0;
	}
}

static uint64_t flash_read(void *opaque, uint64_t off, unsigned size)
{
	struct flash *f = opaque;

	switch (atomic_load(&f->mode)) {
	case FLASH_STATUS:
		return atomic_load(&f->status);
	case FLASH_IDENTIFIER:
		return off == 0 ? CFI_INTEL_MANUFACTURER : off == 1 ? CFI_INTEL_J3_64MBIT : 0;
	case FLASH_QUERY_TABLE:
		return query_byte(f, off);
	default:
		return flash_byte(f, off);
	}
}

const struct bus_ops flash_bus_ops = {
	.read = flash_read,
	.write = flash_write,
	.min_size = 1,
	.max_size = 1, /* a byte-wide chip: the bus splits */
};
