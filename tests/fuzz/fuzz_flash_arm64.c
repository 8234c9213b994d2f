/*
 * The Arm machine's flash: any sequence of accesses, loop rounds, resets and state round trips. A
 * model of the commands, of its own making, says which bytes programming and erasing may change: at
 * every step the array is what it says, and at the end the file is.
 *
 * #covers: src/firmware/flash.c src/firmware/flash_cfi.c src/firmware/flash_arm64.c
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "fakes/fakes.h"
#include "firmware/flash.h"
#include "mem/mem.h"
#include "spec/platform_arm64.h"

#define BLOCK (256 * KiB)
#define SIZE  (BLOCK + 4 * 4096) /* a whole block and a short one */
#define BASE  (PLAT_FLASH_BASE + PLAT_FLASH_BANK)

struct model {
	uint8_t array[SIZE];
	enum { COMMAND, PROGRAM, ERASE, LOCK, COUNT, WORDS, CONFIRM } next;
	unsigned words;
};

static struct fake_vm *machine(int fd)
{
	struct fake_vm_config cfg = {.ram_mib = 1};
	struct fake_vm *fv = fake_vm_new(&cfg);
	char path[64];
	const struct flash_config unit[2] = {
		{.option = "code", .volatile_size = 4096},
		{.option = "fuzz", .path = path},
	};

	mem_region_del(fv->vm.mem, fv->ram); /* it is where the first unit is */
	fv->ram = NULL;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (flash_new(&fv->vm, unit, 2, NULL)) {
		abort();
	}
	return fv;
}

static int image(void)
{
	int fd = memfd_create("flash", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, SIZE)) {
		abort();
	}
	return fd;
}

static void program(struct model *m, uint32_t off, uint32_t v, unsigned size)
{
	for (unsigned i = 0; off % size == 0 && i < size; i++) {
		m->array[off + i] &= (uint8_t)(v >> 8 * i);
	}
}

/* One access of at most 4 bytes that does not straddle words. */
static void model_write(struct model *m, uint32_t off, uint32_t v, unsigned size)
{
	switch (m->next) {
	case COMMAND:
		switch (v & 0xff) {
		case 0x10:
		case 0x40:
			m->next = PROGRAM;
			break;
		case 0x20:
			m->next = ERASE;
			break;
		case 0x60:
			m->next = LOCK;
			break;
		case 0xe8:
			m->next = COUNT;
			break;
		}
		return;
	case PROGRAM:
		program(m, off, v, size);
		break;
	case ERASE:
		if ((v & 0xff) == 0xd0) {
			uint32_t from = off / BLOCK * BLOCK;

			memset(m->array + from, 0xff, MIN(BLOCK, SIZE - from));
		}
		break;
	case COUNT:
		m->words = (v & 0xffff) + 1;
		if (m->words <= 32) {
			m->next = WORDS;
			return;
		}
		break;
	case WORDS:
		program(m, off, v, size);
		m->next = --m->words ? WORDS : CONFIRM;
		return;
	default:
		break;
	}
	m->next = COMMAND;
}

static void both_write(struct fake_vm *fv, struct model *m, uint32_t off, uint32_t v,
		       unsigned size)
{
	fake_mmio_write(fv, BASE + off, v, size);
	model_write(m, off, size < 4 ? v & ((1u << 8 * size) - 1) : v, size);
}

/* len bytes at off, as the guest's memory slot has them. */
static void check(struct fake_vm *fv, const struct model *m, uint32_t off, uint32_t len)
{
	static uint8_t content[SIZE];

	assert(!mem_read(fv->vm.mem, BASE + off, content, len));
	assert(!memcmp(content, m->array + off, len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct model m;
	static uint8_t content[SIZE];
	int fd = image();
	struct fake_vm *fv = machine(fd);

	log_set_level(LOG_ERR);
	memset(&m, 0, sizeof(m));
	while (size >= 6) {
		uint32_t off = (data[1] | (uint32_t)data[2] << 8) * 4u + (data[0] >> 6);
		uint32_t v = data[3] | (uint32_t)data[4] << 8 | (uint32_t)data[5] << 16 |
			     (uint32_t)data[3] << 24;
		unsigned len = 1u << (data[0] >> 4 & 3) % 3;

		off = off % SIZE & ~(len - 1);
		switch (data[0] % 8) {
		case 0:
			fake_mmio_read(fv, BASE + off, len);
			break;
		case 1:
			loop_clock_advance(fv->vm.loop, 20000000);
			loop_step(fv->vm.loop, 0);
			break;
		case 2:
			if (data[3] >= 0xf0) {
				m.next = COMMAND;
				device_list_reset(&fv->devices);
			}
			break;
		case 3:
			if (data[3] >= 0xf0) {
				int other = image();
				struct fake_vm *to = machine(other);

				fake_vm_pause(fv);
				fake_vm_pause(to);
				if (fake_vm_transfer(fv, to, NULL)) {
					abort();
				}
				fake_vm_free(fv);
				close(fd);
				fv = to;
				fd = other;
				device_list_resume(&fv->devices);
			}
			break;
		case 4: /* a whole buffer, if nothing else is going on */
			both_write(fv, &m, off & ~3u, 0x00e800e8, 4);
			both_write(fv, &m, off & ~3u, (data[3] % 34) * 0x00010001u, 4);
			for (unsigned i = 0; i <= data[3] % 34; i++) {
				both_write(fv, &m, ((off & ~3u) + 4 * i) % SIZE, v + i, 4);
			}
			both_write(fv, &m, off & ~3u, 0x00d000d0, 4);
			break;
		default: /* mostly commands */
			both_write(fv, &m, off, data[4] & 1 ? v : data[3] * 0x00010001u, len);
			break;
		}
		check(fv, &m, off & ~3u, 4);
		data += 6;
		size -= 6;
	}
	check(fv, &m, 0, SIZE);
	fake_vm_free(fv);
	assert(pread(fd, content, SIZE, 0) == SIZE);
	assert(!memcmp(content, m.array, SIZE));
	close(fd);
	return 0;
}
