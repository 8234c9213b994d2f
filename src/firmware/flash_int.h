/*
 * Between flash_open.c, flash.c, flash_cfi.c and the chips: flash_x86.c, flash_arm64.c.
 */
#ifndef FIRMWARE_FLASH_INT_H
#define FIRMWARE_FLASH_INT_H

#include <pthread.h>

#include "core/bus.h"
#include "core/device.h"
#include "event/loop.h"
#include "firmware/flash.h"
#include "mem/mem.h"

#define FLASH_BLOCK UINT32_C(4096) /* erase block, and the unit of sizes */

/* The device around a mapped region that holds the content of fd, opened for durable writes.
 * On success fd and rom are the device's, on error they stay the caller's. */
int flash_device_new(struct vm *vm, const char *id, const char *path, int fd,
		     struct mem_region *rom, struct err *err);
/* Removes and destroys it, for a start that fails later. */
void flash_device_undo(struct device *d);

/* --- between flash.c and flash_cfi.c --- */
enum flash_mode { FLASH_ARRAY, FLASH_STATUS, FLASH_IDENTIFIER, FLASH_QUERY_TABLE, FLASH_MODES };
#define FLASH_QUEUE 64

struct entry {
	uint32_t block;
	uint8_t data[FLASH_BLOCK];
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
	uint8_t pending; /* what the next write is: flash_cfi.c's; 0: a command */
	struct entry *queue[FLASH_QUEUE]; /* ring; entries are allocated at first use and kept */
	unsigned head, count;
	bool writing; /* the entry at head */

	struct loop_work arm_work;
	struct loop_timer timer;
	bool failing; /* control loop */
};

/* flash.c. len bytes within one block; then the status bits are the caller's. False: failed. */
bool flash_program_locked(struct flash *f, uint32_t off, const uint8_t *data, unsigned len);
/* Multiples of FLASH_BLOCK. */
bool flash_erase_locked(struct flash *f, uint32_t off, uint32_t len);
uint8_t flash_byte(const struct flash *f, uint64_t off);
/* The mode has changed from or to FLASH_ARRAY: on the control loop. */
void flash_mode_apply(void *flash);

/* flash_cfi.c: what the guest's accesses do. */
uint64_t flash_cfi_read(void *opaque, uint64_t off, unsigned size);
void flash_cfi_write(void *opaque, uint64_t off, uint64_t value, unsigned size);
/* The highest value that flash.pending can have. */
uint8_t flash_max_pending(void);

/* flash_x86.c, flash_arm64.c: the chips, */
struct flash_chip {
	struct bus_ops bus;
	unsigned width, chips; /* bytes of an access, of which each chip has its part */
	uint32_t erase_block;
	unsigned
		buffer_words; /* of the size of an access; 0: the chip has neither buffers nor locks */
	/* After a command the status is read until the array is asked for; otherwise the array,
	 * unless the command asks for something else. */
	bool status_follows;
	uint8_t device_id, query_minor;
};
extern const struct flash_chip flash_chip;
/* and where unit n of size bytes stands. next is 0 for the first unit and then kept by the
 * function. False: there is no room. */
bool flash_place(unsigned unit, uint32_t size, uint64_t *next, uint64_t *gpa);

#endif
