/*
 * fw_cfg: any sequence of port accesses and DMA descriptors, with ACPI tables made when fetched,
 * a writable file, resets and a state round trip in between.
 *
 * Input: operations of one byte each with their operands behind them.
 *
 * #covers: src/firmware/fw_cfg.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fakes/fakes.h"
#include "firmware/acpi/acpi.h"
#include "firmware/fw_cfg.h"

#define PORT 0x510

struct input {
	const uint8_t *p;
	size_t left;
};

static uint64_t take(struct input *in, unsigned n)
{
	uint64_t v = 0;

	while (n-- && in->left) {
		v = v << 8 | *in->p++;
		in->left--;
	}
	return v;
}

static struct acpi_cpu cpus[3] = {{0, true}, {1, true}, {300, false}};
static uint64_t window_end;

static void facts(void *opaque, struct acpi_facts *f)
{
	*f = (struct acpi_facts){
		.cpu = cpus, .ncpus = 3, .mem64_base = 4096, .mem64_end = window_end};
}

static void written(void *opaque, const void *data, size_t len)
{
	assert(len == 64);
}

static struct fake_vm *machine(struct acpi_loader **l)
{
	struct fake_vm_config cfg = {.ram_mib = 1};
	struct fake_vm *fv = fake_vm_new(&cfg);
	struct fw_cfg *fw;

	if (fw_cfg_new(&fv->vm, PORT, &fw, NULL) || acpi_loader_new(fw, facts, NULL, l, NULL) ||
	    fw_cfg_add_file_writable(fw, "etc/w", NULL, 64, written, NULL, NULL) ||
	    fw_cfg_set_u16(fw, 5, 4, NULL)) {
		abort();
	}
	return fv;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct acpi_loader *loader[2];
	struct fake_vm *fv;

	log_set_level(LOG_ERR);
	window_end = 0;
	fv = machine(&loader[0]);
	while (in.left) {
		uint8_t op = (uint8_t)take(&in, 1);
		uint8_t bytes[16] = {0};

		switch (op % 8) {
		case 0: /* any access */
			fake_pio_write(fv, (uint16_t)(PORT + op / 8 % 12),
				       (uint32_t)take(&in, 4), 1u << op / 96 % 3);
			break;
		case 1:
			fake_pio_read(fv, (uint16_t)(PORT + op / 8 % 12), 1u << op / 96 % 3);
			break;
		case 2: /* a key that is there */
			fake_pio_write(fv, PORT, (uint32_t)take(&in, 1) % 40, 2);
			break;
		case 3: /* a descriptor at a good place */
			for (unsigned i = 0; i < sizeof(bytes); i++) {
				bytes[i] = (uint8_t)take(&in, 1);
			}
			bytes[8] = bytes[9] = bytes[10] = bytes[11] = 0;
			mem_write(fv->vm.mem, 0x1000, bytes, sizeof(bytes));
			fake_pio_write(fv, PORT + 8, __builtin_bswap32(0x1000), 4);
			break;
		case 4: { /* a descriptor anywhere */
			uint64_t at = take(&in, 5);

			fake_pio_write(fv, PORT + 4, __builtin_bswap32((uint32_t)(at >> 32)),
				       4);
			fake_pio_write(fv, PORT + 8, __builtin_bswap32((uint32_t)at), 4);
			break;
		}
		case 5:
			device_list_reset(&fv->devices);
			break;
		case 6:
			window_end = take(&in, 8);
			break;
		default: {
			struct fake_vm *to = machine(&loader[1]);

			fake_vm_pause(fv);
			fake_vm_pause(to);
			if (fake_vm_transfer(fv, to, NULL)) {
				abort();
			}
			fake_vm_free(fv);
			acpi_loader_free(loader[0]);
			fv = to;
			loader[0] = loader[1];
			device_list_resume(&fv->devices);
			in.left -= MIN(in.left, 16); /* dear: not too many of them */
			in.p += in.left ? 16 : 0;
			break;
		}
		}
	}
	fake_vm_free(fv);
	acpi_loader_free(loader[0]);
	return 0;
}
