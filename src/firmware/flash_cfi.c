/*
 * The commands of flash chips: the Intel Extended Command Set (JEDEC JESD68.01), as far as firmware
 * programs variables with it. What the chips of a machine have is in struct flash_chip.
 *
 * 10 and 40 program a word, 20 D0 erases a block, 50 clears the status, 70 reads it, 90 reads the
 * identifier, 98 the CFI query table, FF the array. Chips with buffers and locks also have E8
 * (buffered program: number of words less one, the words, D0) and 60 D0, 60 01 (unlock and lock;
 * nothing is ever locked). Programming clears bits, as NOR flash does. Words of a buffer are
 * programmed as they come; what a power loss leaves of a buffer is not defined by real chips either.
 *
 * Threads and locks: flash.c. Untrusted: the guest.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/util.h"
#include "event/loop.h"
#include "firmware/flash_int.h"
#include "firmware/trace.h"
#include "spec/cfi_flash.h"

/* BUFFER + n: n words are to come. */
enum pending { NONE, PROGRAM, ERASE, LOCK, COUNT, CONFIRM, BUFFER };
#define BAD_SEQUENCE (CFI_STATUS_ERASE_ERROR | CFI_STATUS_PROGRAM_ERROR)

uint8_t flash_max_pending(void)
{
	return flash_chip.buffer_words ? (uint8_t)(BUFFER + flash_chip.buffer_words) : ERASE;
}

static void status_set(struct flash *f, bool ok, uint8_t error)
{
	atomic_fetch_or(&f->status, (uint8_t)(CFI_STATUS_READY | (ok ? 0 : error)));
}

static void mode_set(struct flash *f, enum flash_mode mode)
{
	atomic_store(&f->mode, mode);
}

/* The first write of a command. */
static void command_locked(struct flash *f, uint8_t cmd)
{
	enum pending next = NONE;

	switch (cmd) {
	case CFI_CMD_PROGRAM:
	case CFI_CMD_PROGRAM_ALT:
		next = PROGRAM;
		break;
	case CFI_CMD_ERASE:
		next = ERASE;
		break;
	case CFI_CMD_CLEAR_STATUS:
		atomic_store(&f->status, 0);
		return;
	case CFI_CMD_READ_STATUS:
		if (flash_chip.status_follows) {
			status_set(f, true, 0);
		}
		mode_set(f, FLASH_STATUS);
		return;
	case CFI_CMD_READ_ID:
		mode_set(f, FLASH_IDENTIFIER);
		return;
	case CFI_CMD_QUERY:
		mode_set(f, FLASH_QUERY_TABLE);
		return;
	case CFI_CMD_READ_ARRAY:
		mode_set(f, FLASH_ARRAY);
		return;
	case CFI_CMD_LOCK_SETUP:
		next = flash_chip.buffer_words ? LOCK : NONE;
		break;
	case CFI_CMD_BUFFER:
		next = flash_chip.buffer_words ? COUNT : NONE;
		break;
	default:
		break;
	}
	f->pending = next;
	if (next == NONE) {
		/* 0 is what some drivers write to be sure that the array is read */
		if (cmd || !flash_chip.status_follows) {
			status_set(f, false, BAD_SEQUENCE);
		}
		mode_set(f, FLASH_ARRAY);
		return;
	}
	if (next == COUNT) {
		status_set(f, true, 0); /* a buffer is free */
	}
	if (flash_chip.status_follows) {
		mode_set(f, FLASH_STATUS);
	}
}

static void program_locked(struct flash *f, uint64_t off, uint64_t value, unsigned size)
{
	uint8_t data[4];

	memcpy(data, &value, sizeof(data));
	/* one that is not aligned would be in two words, and two blocks of the file */
	status_set(f, off % size == 0 && flash_program_locked(f, (uint32_t)off, data, size),
		   CFI_STATUS_PROGRAM_ERROR);
}

/* The last block of a short file is short. */
static bool erase_locked(struct flash *f, uint32_t off)
{
	off -= off % flash_chip.erase_block;
	return flash_erase_locked(f, off, MIN(flash_chip.erase_block, f->size - off));
}

/* What follows a command's first write. */
static void operand_locked(struct flash *f, uint8_t pending, uint64_t off, uint64_t value,
			   unsigned size)
{
	uint8_t cmd = (uint8_t)value;

	switch (pending) {
	case PROGRAM:
		program_locked(f, off, value, size);
		break;
	case ERASE:
		if (cmd == CFI_CMD_CONFIRM) {
			status_set(f, erase_locked(f, (uint32_t)off), CFI_STATUS_ERASE_ERROR);
		} else {
			status_set(f, false, BAD_SEQUENCE);
		}
		break;
	case LOCK:
		status_set(f, cmd == CFI_CMD_CONFIRM || cmd == CFI_CMD_LOCK, BAD_SEQUENCE);
		break;
	case COUNT:
		if ((value & 0xffff) < flash_chip.buffer_words) {
			f->pending = (uint8_t)(BUFFER + (value & 0xffff) + 1);
		} else {
			status_set(f, false, BAD_SEQUENCE);
		}
		break;
	case CONFIRM:
		status_set(f, cmd == CFI_CMD_CONFIRM, BAD_SEQUENCE);
		break;
	default:
		program_locked(f, off, value, size);
		f->pending = pending - 1 > BUFFER ? pending - 1 : CONFIRM;
		break;
	}
	if (!flash_chip.status_follows) {
		mode_set(f, FLASH_ARRAY);
	}
}

void flash_cfi_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct flash *f = opaque;
	bool was_array, is_array;
	uint8_t pending;

	pthread_mutex_lock(&f->lock);
	was_array = atomic_load(&f->mode) == FLASH_ARRAY;
	pending = f->pending;
	f->pending = NONE;
	trace_flash_write(f->dev.id, off, value, pending);
	if (pending == NONE) {
		command_locked(f, (uint8_t)value);
	} else {
		operand_locked(f, pending, off, value, size);
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
		[0x10] = 'Q',  [0x11] = 'R',  [0x12] = 'Y', [0x13] = 0x01, /* Intel Extended */
		[0x15] = 0x31,						   /* its table */
		[0x1b] = 0x27, [0x1c] = 0x36,				   /* 2.7 to 3.6 V */
		[0x1f] = 0x07,						   /* program: 2^7 us */
		[0x21] = 0x0a,						   /* erase: 2^10 ms */
		[0x23] = 0x04, [0x25] = 0x04, /* at most 2^4 times that */
		[0x2c] = 0x01,		      /* one erase region */
		[0x31] = 'P',  [0x32] = 'R',  [0x33] = 'I', [0x34] = '1',  [0x40] = 0x00,
	};
	/* half of the bytes are the other chip's, where there are two */
	uint32_t block = flash_chip.erase_block / flash_chip.chips;
	uint32_t blocks = MAX(f->size / flash_chip.erase_block, 1) - 1;

	switch (at) {
	case 0x20: /* program a buffer: 2^7 us */
		return flash_chip.buffer_words ? 0x07 : 0;
	case 0x24:
		return flash_chip.buffer_words ? 0x04 : 0;
	case 0x27: /* size of a chip: 2^n, rounded up */
		return (uint32_t)(64 -
				  __builtin_clzll((uint64_t)f->size / flash_chip.chips - 1));
	case 0x28: /* 16 bits */
		return flash_chip.width > 1 ? 0x01 : 0;
	case 0x2a: /* bytes of a buffer: 2^n */
		return flash_chip.buffer_words
			       ? (uint32_t)__builtin_ctz(flash_chip.buffer_words * 2)
			       : 0;
	case 0x2d:
		return blocks & 0xff;
	case 0x2e:
		return blocks >> 8 & 0xff;
	case 0x2f:
		return block / 256 & 0xff;
	case 0x30:
		return block / 256 >> 8 & 0xff;
	case 0x35:
		return flash_chip.query_minor;
	default:
		return at < sizeof(table) ? table[at] : 0;
	}
}

static uint32_t identifier(uint64_t at)
{
	/* word 2 of a block: not locked */
	return at == 0 ? CFI_INTEL_MANUFACTURER : at == 1 ? flash_chip.device_id : 0;
}

uint64_t flash_cfi_read(void *opaque, uint64_t off, unsigned size)
{
	struct flash *f = opaque;
	uint64_t data = 0, at = off / flash_chip.width;
	uint32_t v = 0;

	switch (atomic_load(&f->mode)) {
	case FLASH_STATUS:
		v = atomic_load(&f->status);
		break;
	case FLASH_IDENTIFIER:
		v = identifier(at);
		break;
	case FLASH_QUERY_TABLE:
		v = query_byte(f, at);
		break;
	default:
		for (unsigned i = 0; i < size; i++) {
			data |= (uint64_t)flash_byte(f, off + i) << 8 * i;
		}
		return data;
	}
	if (flash_chip.chips == 2) {
		v |= v << 16; /* both say the same */
	}
	return v >> off % flash_chip.width * 8;
}
