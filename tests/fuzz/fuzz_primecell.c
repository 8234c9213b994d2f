/*
 * The platform devices that only the Arm machine has, wired as there: UART, clock, GPIO with its key.
 * Any accesses, back-end traffic, time, keys, resets and state round trips.
 *
 * What must hold at the end, whatever came before: the UART takes a byte and gives it to a back end
 * that has room, one from outside arrives, the clock counts, and a key is seen.
 *
 * #covers: src/device/platform/pl011.c src/device/platform/pl031.c src/device/platform/pl061.c
 * #covers: src/device/platform/serial.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "device/fake_chr.c" /* in place of chardev/, see there */
#include "base/log.h"
#include "device/platform/primecell.h"
#include "device/platform/serial.h"
#include "fakes/fakes.h"
#include "spec/platform_arm64.h"
#include "spec/primecell.h"

enum { UART_PIN = 1, RTC_PIN = 2, GPIO_PIN = 7 };

static const uint64_t cells[] = {PLAT_UART_BASE, PLAT_RTC_BASE, PLAT_GPIO_BASE};

struct machine {
	struct fake_vm *fv;
	struct pl061 *gpio;
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
	struct serial_config uart = {.id = "serial0", .base = PLAT_UART_BASE, .chr = &m->chr};
	struct pl031_config rtc = {.base = PLAT_RTC_BASE, .now = host_now, .opaque = m};

	m->fv = fake_vm_new(&cfg);
	m->now = INT64_C(1700000000000000000);
	fake_chr_init(&m->chr);
	uart.line = fake_irq_line(&m->fv->irq, UART_PIN);
	rtc.line = fake_irq_line(&m->fv->irq, RTC_PIN);
	if (pl011_new(&m->fv->vm, &uart, NULL) || pl031_new(&m->fv->vm, &rtc, NULL) ||
	    pl061_new(&m->fv->vm, PLAT_GPIO_BASE, fake_irq_line(&m->fv->irq, GPIO_PIN),
		      &m->gpio, NULL)) {
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

static uint32_t rd(struct machine *m, uint64_t base, unsigned reg)
{
	return (uint32_t)fake_mmio_read(m->fv, base + reg, 4);
}

static void wr(struct machine *m, uint64_t base, unsigned reg, uint32_t v)
{
	fake_mmio_write(m->fv, base + reg, v, 4);
}

static bool irq(const struct machine *m, unsigned pin)
{
	return m->fv->irq.line[0] >> pin & 1;
}

static void final_check(struct machine *m)
{
	const uint32_t key = 1u << PLAT_GPIO_POWER_KEY;
	uint32_t before;
	size_t sent;

	fake_chr_room(&m->chr, SIZE_MAX);
	advance(m, 1000000000);
	wr(m, PLAT_UART_BASE, PL011_CR, PL011_CR_TXE | PL011_CR_RXE);
	wr(m, PLAT_UART_BASE, PL011_IMSC, 0);
	fake_vm_settle(m->fv);
	assert(rd(m, PLAT_UART_BASE, PL011_FR) & PL011_FR_TXFE);
	assert(!irq(m, UART_PIN));
	sent = m->chr.sent_len;
	wr(m, PLAT_UART_BASE, PL011_DR, '!');
	fake_vm_settle(m->fv);
	assert(m->chr.sent_len == sent + 1 && m->chr.sent[sent] == '!');
	for (unsigned i = 0; i < 2048 && !(rd(m, PLAT_UART_BASE, PL011_FR) & PL011_FR_RXFE);
	     i++) {
		rd(m, PLAT_UART_BASE, PL011_DR);
		fake_vm_settle(m->fv);
	}
	fake_chr_feed(&m->chr, "?", 1);
	fake_vm_settle(m->fv);
	assert(rd(m, PLAT_UART_BASE, PL011_DR) == '?');

	before = rd(m, PLAT_RTC_BASE, PL031_DR);
	wr(m, PLAT_RTC_BASE, PL031_ICR, 1);
	wr(m, PLAT_RTC_BASE, PL031_IMSC, 1);
	wr(m, PLAT_RTC_BASE, PL031_MR, before + 2);
	assert(!irq(m, RTC_PIN));
	advance(m, UINT64_C(3000000000));
	assert(rd(m, PLAT_RTC_BASE, PL031_DR) == before + 3 && irq(m, RTC_PIN));

	wr(m, PLAT_GPIO_BASE, PL061_DIR, 0);
	wr(m, PLAT_GPIO_BASE, PL061_IS, 0);
	wr(m, PLAT_GPIO_BASE, PL061_IBE, 0);
	wr(m, PLAT_GPIO_BASE, PL061_IEV, key);
	wr(m, PLAT_GPIO_BASE, PL061_IE, key);
	wr(m, PLAT_GPIO_BASE, PL061_IC, 0xff);
	assert(!irq(m, GPIO_PIN));
	pl061_press(m->gpio, PLAT_GPIO_POWER_KEY);
	assert(irq(m, GPIO_PIN) && rd(m, PLAT_GPIO_BASE, PL061_DATA + (key << 2)) == key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine *m = machine_new();

	log_set_level(LOG_ERR);
	while (size >= 6) {
		uint32_t v = data[2] | (uint32_t)data[3] << 8 | (uint32_t)data[4] << 16 |
			     (uint32_t)data[5] << 24;
		/* mostly registers, some of what is between them; wide and straddling ones, too */
		uint64_t at =
			cells[data[1] % 3] +
			(data[1] & 0x80 ? v % PRIMECELL_SIZE : (data[1] >> 2 & 0x1f) * 4u);
		unsigned len = 1u << (data[0] >> 6);

		at += data[1] % 3 == 2 && data[1] & 0x40 ? PL061_DIR : 0;
		switch (data[0] % 16) {
		case 0:
			fake_chr_room(&m->chr, v % 3 ? v % 1000 : SIZE_MAX);
			break;
		case 1:
			if (m->chr.in_len < 1024) {
				fake_chr_feed(&m->chr, data, data[1] % 7);
			}
			break;
		case 2:
			m->chr.client.event(m->chr.client.opaque, (enum chr_event)(v % 3));
			break;
		case 3:
			advance(m, (uint64_t)v << data[1] % 8);
			break;
		case 4:
			pl061_press(m->gpio, v % 8);
			break;
		case 5:
			fake_vm_pause(m->fv);
			device_list_reset(&m->fv->devices);
			device_list_resume(&m->fv->devices);
			break;
		case 6:
			if (v % 16 == 0) {
				struct machine *to = machine_new();

				fake_vm_pause(m->fv);
				fake_vm_pause(to->fv);
				to->now = m->now;
				if (fake_vm_transfer(m->fv, to->fv, NULL)) {
					abort();
				}
				to->fv->irq.line[0] = m->fv->irq.line[0];
				machine_free(m);
				m = to;
				device_list_resume(&m->fv->devices);
			}
			break;
		case 7:
			fake_vm_settle(m->fv);
			break;
		case 8:
		case 9:
		case 10:
			fake_mmio_read(m->fv, at, len);
			break;
		default:
			fake_mmio_write(m->fv, at, v, len);
			break;
		}
		data += 6;
		size -= 6;
	}
	final_check(m);
	machine_free(m);
	return 0;
}
