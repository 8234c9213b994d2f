/*
 * The flash of the AArch64 machine, as AAVMF programs it: two interleaved 16-bit chips that are
 * accessed as 32 bits, so each half of a command or a status is for one chip and both are the same.
 *
 * Intel Extended Command Set, erase blocks of 256 KiB (JEDEC JESD68.01; Intel StrataFlash P30
 * datasheet): 40 program, E8 buffered program (number of words less one, at most 32 words, D0), 20
 * D0 erase, 60 D0 or 60 01 unlock and lock (nothing is ever locked), 50 clear status, 70 read
 * status, 90 read identifier, 98 CFI query, FF read array. After a command other than the last the
 * status is read until the array is asked for. Words of a buffer are programmed as they come; what
 * a power loss leaves of a buffer is not defined by real chips either.
 *
 * Unit n stands at n times 64 MiB. Threads and locks: flash.c.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/util.h"
#include "event/loop.h"
#include "firmware/flash_int.h"
#include "firmware/trace.h"
#include "spec/cfi_flash.h"
#include "spec/platform_arm64.h"

#define ERASE_BLOCK (256 * KiB)
#define BOTH	    0x00010001u /* times a value of one chip */
#define MAX_WORDS   32u

/* BUFFER + n: n words are to come. */
enum pending { NONE, PROGRAM, ERASE, LOCK, COUNT, CONFIRM, BUFFER };
const uint8_t flash_max_pending = BUFFER + MAX_WORDS;

bool flash_place(unsigned unit, uint32_t size, uint64_t *next, uint64_t *gpa)
{
	*gpa = PLAT_FLASH_BASE + unit * PLAT_FLASH_BANK;
	return unit < FLASH_MAX_UNITS && size <= PLAT_FLASH_BANK;
}

static void status_set(struct flash *f, bool ok, uint8_t error)
{
	atomic_fetch_or(&f->status, (uint8_t)(CFI_STATUS_READY | (ok ? 0 : error)));
}

static void command_locked(struct flash *f, uint8_t cmd)
{
	enum flash_mode mode = FLASH_STATUS;

	switch (cmd) {
	case CFI_CMD_PROGRAM:
	case CFI_CMD_PROGRAM_ALT:
		f->pending = PROGRAM;
		break;
	case CFI_CMD_ERASE:
		f->pending = ERASE;
		break;
	case CFI_CMD_LOCK_SETUP:
		f->pending = LOCK;
		break;
	case CFI_CMD_BUFFER:
		f->pending = COUNT;
		status_set(f, true, 0); /* a buffer is free */
		break;
	case CFI_CMD_CLEAR_STATUS:
		atomic_store(&f->status, 0);
		return;
	case CFI_CMD_READ_STATUS:
		status_set(f, true, 0);
		break;
	case CFI_CMD_READ_ID:
		mode = FLASH_IDENTIFIER;
		break;
	case CFI_CMD_QUERY:
		mode = FLASH_QUERY_TABLE;
		break;
	case CFI_CMD_READ_ARRAY:
	case 0: /* what some drivers write to be sure */
		mode = FLASH_ARRAY;
		break;
	default:
		status_set(f, false, CFI_STATUS_ERASE_ERROR | CFI_STATUS_PROGRAM_ERROR);
		mode = FLASH_ARRAY;
		break;
	}
	atomic_store(&f->mode, mode);
}

static void program_locked(struct flash *f, uint64_t off, uint64_t value, unsigned size)
{
	uint8_t data[4];

	memcpy(data, &value, sizeof(data));
	if (off % size) { /* would be in two words, and two blocks of the file */
		status_set(f, false, CFI_STATUS_PROGRAM_ERROR);
		return;
	}
	status_set(f, flash_program_locked(f, (uint32_t)off, data, size),
		   CFI_STATUS_PROGRAM_ERROR);
}

/* The last block of a short file is short. */
static bool erase_locked(struct flash *f, uint32_t off)
{
	return flash_erase_locked(f, off, (uint32_t)MIN(ERASE_BLOCK, f->size - off));
}

static void flash_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	const uint8_t bad_sequence = CFI_STATUS_ERASE_ERROR | CFI_STATUS_PROGRAM_ERROR;
	struct flash *f = opaque;
	uint8_t cmd = (uint8_t)value, pending;
	bool was_array, is_array;

	pthread_mutex_lock(&f->lock);
	was_array = atomic_load(&f->mode) == FLASH_ARRAY;
	pending = f->pending;
	f->pending = NONE;
	trace_flash_write(f->dev.id, off, cmd, pending);
	switch (pending) {
	case NONE:
		command_locked(f, cmd);
		break;
	case PROGRAM:
		program_locked(f, off, value, size);
		break;
	case ERASE:
		if (cmd == CFI_CMD_CONFIRM) {
			status_set(f, erase_locked(f, (uint32_t)align_down(off, ERASE_BLOCK)),
				   CFI_STATUS_ERASE_ERROR);
		} else {
			status_set(f, false, bad_sequence);
		}
		break;
	case LOCK:
		status_set(f, cmd == CFI_CMD_CONFIRM || cmd == CFI_CMD_LOCK, bad_sequence);
		break;
	case COUNT:
		if ((value & 0xffff) < MAX_WORDS) {
			f->pending = (uint8_t)(BUFFER + (value & 0xffff) + 1);
		} else {
			status_set(f, false, bad_sequence);
		}
		break;
	case CONFIRM:
		status_set(f, cmd == CFI_CMD_CONFIRM, bad_sequence);
		break;
	default:
		program_locked(f, off, value, size);
		f->pending = pending - 1 > BUFFER ? pending - 1 : CONFIRM;
		break;
	}
	is_array = atomic_load(&f->mode) == FLASH_ARRAY;
	pthread_mutex_unlock(&f->lock);
	if (was_array != is_array) {
		loop_call(f->vm->loop, flash_mode_apply, f);
	}
}

/* The table of the CFI query, for one chip; at: offsets of the standard. */
static uint32_t query_byte(const struct flash *f, uint64_t at)
{
	static const uint8_t table[] = {
		[0x10] = 'Q',  [0x11] = 'R',  [0x12] = 'Y',  [0x13] = 0x01, /* Intel Extended */
		[0x15] = 0x31,						    /* its table */
		[0x1b] = 0x27, [0x1c] = 0x36,				    /* 2.7 to 3.6 V */
		[0x1f] = 0x07, [0x20] = 0x07, /* program a word, a buffer: 2^7 us */
		[0x21] = 0x0a,		      /* erase: 2^10 ms */
		[0x23] = 0x04, [0x24] = 0x04, [0x25] = 0x04, /* at most 2^4 times that */
		[0x28] = 0x01,				     /* 16 bits */
		[0x2a] = 0x06,				     /* 2^6 bytes of a buffer */
		[0x2c] = 0x01,				     /* one erase region */
		[0x31] = 'P',  [0x32] = 'R',  [0x33] = 'I',  [0x34] = '1',
		[0x35] = '0',  [0x40] = 0x00,
	};
	uint32_t blocks = (uint32_t)(f->size / ERASE_BLOCK);
	const uint32_t chip_block =
		ERASE_BLOCK / 2; /* half of the bytes are the other chip's */

	switch (at) {
	case 0x27: /* size of a chip: 2^n, rounded up */
		return (uint32_t)(64 - __builtin_clzll((uint64_t)f->size / 2 - 1));
	case 0x2d:
		return (blocks ? blocks - 1 : 0) & 0xff;
	case 0x2e:
		return (blocks ? blocks - 1 : 0) >> 8;
	case 0x2f:
		return chip_block / 256 & 0xff;
	case 0x30:
		return chip_block / 256 >> 8;
	default:
		return at < sizeof(table) ? table[at] : 0;
	}
}

static uint64_t flash_read(void *opaque, uint64_t off, unsigned size)
{
	struct flash *f = opaque;
	uint32_t v = 0;
	uint64_t data = 0;

	switch (atomic_load(&f->mode)) {
	case FLASH_STATUS:
		v = atomic_load(&f->status);
		break;
	case FLASH_IDENTIFIER: /* word 2 of a block: not locked */
		v = off / 4 == 0   ? CFI_INTEL_MANUFACTURER
		    : off / 4 == 1 ? CFI_INTEL_P30_256MBIT
				   : 0;
		break;
	case FLASH_QUERY_TABLE:
		v = query_byte(f, off / 4);
		break;
	default:
		for (unsigned i = 0; i < size; i++) {
			data |= (uint64_t)flash_byte(f, off + i) << 8 * i;
		}
		return data;
	}
	return v * BOTH >> off % 4 * 8;
}

const struct bus_ops flash_bus_ops = {
	.read = flash_read,
	.write = flash_write,
	.min_size = 1,
	.max_size = 4, /* the bus splits */
};
