/*
 * Flash: any sequence of accesses, loop rounds, resets and state round trips. What the guest
 * reads is compared with a model, and at the end the file with what the guest read.
 *
 * #covers: src/firmware/flash.c src/firmware/flash_cfi.c src/firmware/flash_x86.c
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

#define SIZE (4 * 4096)
#define BASE (4 * GiB - SIZE)

static struct fake_vm *machine(int fd)
{
	struct fake_vm_config cfg = {.ram_mib = 1};
	struct fake_vm *fv = fake_vm_new(&cfg);
	char path[64];
	struct flash_config unit = {.option = "fuzz", .path = path};

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (flash_new(&fv->vm, &unit, 1, NULL)) {
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t model[SIZE], content[SIZE];
	uint8_t pending = 0;
	int fd = image();
	struct fake_vm *fv = machine(fd);

	log_set_level(LOG_ERR);
	memset(model, 0, sizeof(model));
	while (size >= 4) {
		unsigned op = data[0] % 8;
		uint32_t off = (data[1] | (uint32_t)data[2] << 8) % SIZE;
		uint8_t v = data[3];

		data += 4;
		size -= 4;
		switch (op) {
		case 0:
			fake_mmio_read(fv, BASE + (off & ~7u), 1u << v % 4);
			break;
		case 1:
			loop_clock_advance(fv->vm.loop, 20000000);
			loop_step(fv->vm.loop, 0);
			break;
		case 2:
			if (v < 0xf0) {
				break;
			}
			pending = 0;
			device_list_reset(&fv->devices);
			break;
		case 3: {
			struct fake_vm *to;
			int other;

			if (v < 0xf0) {
				break;
			}
			other = image();
			to = machine(other);
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
			break;
		}
		case 4: /* a whole program command */
			fake_mmio_write(fv, BASE + off, pending ? 0 : 0x40, 1);
			if (pending) {
				goto second; /* it was the operand of the one before */
			}
			fake_mmio_write(fv, BASE + off, v, 1);
			model[off] &= v;
			break;
		default:
			fake_mmio_write(fv, BASE + off, v, 1);
			if (!pending) {
				pending = v == 0x10 || v == 0x40 ? 1 : v == 0x20 ? 2 : 0;
				break;
			}
			if (pending == 1) {
				model[off] &= v;
			} else if (v == 0xd0) {
				memset(model + off / 4096 * 4096, 0xff, 4096);
			}
			pending = 0;
			break;
		second:
			if (pending == 1) {
				model[off] = 0;
			}
			pending = 0;
			break;
		}
		assert(!mem_read(fv->vm.mem, BASE + off, content, 1));
		assert(content[0] == model[off]);
	}
	assert(!mem_read(fv->vm.mem, BASE, content, SIZE));
	assert(!memcmp(content, model, SIZE));
	fake_vm_free(fv);
	assert(pread(fd, content, SIZE, 0) == SIZE);
	assert(!memcmp(content, model, SIZE));
	close(fd);
	return 0;
}
