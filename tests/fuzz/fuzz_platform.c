/*
 * The platform devices of the x86-64 machine together: I/O APIC, UART, RTC, PM timer, reset port
 * and event device, wired as on the machine. Any accesses, back-end traffic, time, EOIs, resets
 * and state round trips.
 *
 * What must hold at the end, whatever came before: a level pin works (it fires, and its EOI ends
 * it), and the UART takes a byte and gives it to a back end that has room.
 *
 * #covers: src/device/platform/ioapic.c src/device/platform/uart.c src/device/platform/rtc.c
 * #covers: src/device/platform/pm.c src/device/platform/ged.c src/device/platform/reset.c src/device/platform/serial.c
 * #covers: src/core/bus.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "device/fake_chr.c" /* in place of chardev/, see there */
#include "device/platform/ged.h"
#include "device/platform/ioapic.h"
#include "device/platform/pm.h"
#include "device/platform/reset.h"
#include "device/platform/rtc.h"
#include "device/platform/serial.h"
#include "base/log.h"
#include "fakes/fakes.h"
#include "spec/ioapic.h"
#include "spec/platform_x86.h"

static const uint16_t ports[] = {
	0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x70,  0x71,
	0x64,  0x600, 0x604, 0x605, 0x606, 0x608, 0x609, 0x60a, 0x60b, 0x607,
};
static const uint64_t mmio[] = {
	PLAT_IOAPIC_BASE,	 PLAT_IOAPIC_BASE,	  PLAT_IOAPIC_BASE + 0x10,
	PLAT_IOAPIC_BASE + 0x10, PLAT_IOAPIC_BASE + 0x40, PLAT_IOAPIC_BASE + 0x20,
	PLAT_GED_BASE,
};

struct machine {
	struct fake_vm *fv;
	struct ioapic *io;
	struct ged *ged;
	struct chr chr;
	int64_t now;
};

static int64_t host_now(void *opaque)
{
	return ((struct machine *)opaque)->now;
}

static struct machine *machine_new(void)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct fake_vm_config cfg = {.ram_mib = 1};
	struct serial_config uart = {.id = "serial0", .base = 0x3f8, .chr = &m->chr};
	struct rtc_config rtc = {.now = host_now, .opaque = m};

	m->fv = fake_vm_new(&cfg);
	m->now = INT64_C(1700000000000000000);
	fake_chr_init(&m->chr);
	if (ioapic_new(&m->fv->vm, &m->io, NULL)) {
		abort();
	}
	uart.line = ioapic_line(m->io, PLAT_GSI_UART);
	if (ged_new(&m->fv->vm, PLAT_GED_BASE, ioapic_line(m->io, PLAT_GSI_GED), &m->ged, NULL) ||
	    uart_new(&m->fv->vm, &uart, NULL) || rtc_new(&m->fv->vm, &rtc, NULL) ||
	    pm_new(&m->fv->vm, NULL) || reset_new(&m->fv->vm, NULL)) {
		abort();
	}
	return m;
}

static void machine_free(struct machine *m)
{
	fake_vm_free(m->fv);
	fake_chr_fini(&m->chr);
	free(m);
}

static void advance(struct machine *m, uint64_t ns)
{
	m->now += (int64_t)ns;
	loop_clock_advance(m->fv->vm.loop, ns);
	fake_vm_settle(m->fv);
}

static void pin_write(struct machine *m, unsigned pin, uint32_t v)
{
	fake_mmio_write(m->fv, PLAT_IOAPIC_BASE, 0x10 + 2 * pin, 4);
	fake_mmio_write(m->fv, PLAT_IOAPIC_BASE + 0x10, v, 4);
}

static void final_check(struct machine *m)
{
	size_t before;

	for (unsigned pin = 0; pin < PLAT_IOAPIC_PINS; pin++) {
		struct irq_line line = ioapic_line(m->io, pin);

		irq_line_set(&line, false);
		pin_write(m, pin, 0x30 + pin); /* edge: clears Remote IRR */
		pin_write(m, pin, (uint32_t)(0x30 + pin) | (uint32_t)IOAPIC_RTE_LEVEL);
		irq_line_set(&line, true);
		assert(fake_mmio_read(m->fv, PLAT_IOAPIC_BASE + 0x10, 4) &
		       IOAPIC_RTE_REMOTE_IRR);
		irq_line_set(&line, false);
		ioapic_eoi(m->io, (uint8_t)(0x30 + pin));
		assert(!(fake_mmio_read(m->fv, PLAT_IOAPIC_BASE + 0x10, 4) &
			 IOAPIC_RTE_REMOTE_IRR));
	}
	fake_chr_room(&m->chr, SIZE_MAX);
	advance(m, 1000000000);
	fake_pio_write(m->fv, 0x3fb, 3, 1);
	fake_pio_write(m->fv, 0x3fc, 0, 1);
	assert((fake_pio_read(m->fv, 0x3fd, 1) & 0x60) == 0x60);
	before = m->chr.sent_len;
	fake_pio_write(m->fv, 0x3f8, '!', 1);
	advance(m, 1);
	assert(m->chr.sent_len == before + 1 && m->chr.sent[before] == '!');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine *m = machine_new();

	log_set_level(LOG_ERR);
	while (size >= 6) {
		uint32_t v = data[2] | (uint32_t)data[3] << 8 | (uint32_t)data[4] << 16 |
			     (uint32_t)data[5] << 24;
		unsigned len = 1u << data[1] % 4;
		uint16_t port = ports[(data[1] >> 2) % ARRAY_SIZE(ports)];
		uint64_t at = mmio[(data[1] >> 2) % ARRAY_SIZE(mmio)];

		switch (data[0] % 12) {
		case 0:
		case 1:
			fake_pio_write(m->fv, port, v, MIN(len, 4u));
			break;
		case 2:
			fake_pio_read(m->fv, port, MIN(len, 4u));
			break;
		case 3:
			fake_mmio_write(m->fv, at, v, len);
			break;
		case 4:
			fake_mmio_read(m->fv, at, len);
			break;
		case 5:
			if (m->chr.in_len < 1024) {
				fake_chr_feed(&m->chr, data, data[1] % 7);
			}
			break;
		case 6:
			fake_chr_room(&m->chr, v % 3 ? v % 1000 : SIZE_MAX);
			break;
		case 7:
			advance(m, (uint64_t)v << data[1] % 8);
			break;
		case 8:
			ioapic_eoi(m->io, data[1]);
			ged_raise(m->ged, v);
			break;
		case 9:
			m->chr.client.event(m->chr.client.opaque, (enum chr_event)(v % 3));
			break;
		case 10:
			fake_vm_pause(m->fv);
			device_list_reset(&m->fv->devices);
			device_list_resume(&m->fv->devices);
			break;
		default:
			if (v % 16 == 0) {
				struct machine *to = machine_new();

				fake_vm_pause(m->fv);
				fake_vm_pause(to->fv);
				to->now = m->now;
				if (fake_vm_transfer(m->fv, to->fv, NULL)) {
					abort();
				}
				machine_free(m);
				m = to;
				device_list_resume(&m->fv->devices);
			}
			break;
		}
		data += 6;
		size -= 6;
	}
	final_check(m);
	machine_free(m);
	return 0;
}
