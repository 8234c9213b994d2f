/*
 * PL011, PL031, PL061: identification, interrupts, FIFO levels, loopback, a back end that is full,
 * alarm, keys, reset, and state in mid-operation.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "device/platform/primecell.h"
#include "device/platform/serial.h"
#include "fake_chr.h"
#include "fakes/fakes.h"
#include "spec/primecell.h"
#include "spec/platform_arm64.h"

enum { UART_PIN = 1, RTC_PIN = 2, GPIO_PIN = 7 };

struct env {
	struct fake_vm *fv;
	struct chr chr;
	struct pl061 *gpio;
	int64_t now_ns;
};

static int64_t env_now(void *opaque)
{
	return ((struct env *)opaque)->now_ns;
}

static int setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));
	struct serial_config uart = {.id = "serial0", .base = PLAT_UART_BASE, .chr = &e->chr};
	struct pl031_config rtc = {
		.base = PLAT_RTC_BASE, .offset_s = 100, .now = env_now, .opaque = e};

	e->now_ns = INT64_C(1000000) * 1000000000;
	e->fv = fake_vm_new(NULL);
	fake_chr_init(&e->chr);
	uart.line = fake_irq_line(&e->fv->irq, UART_PIN);
	rtc.line = fake_irq_line(&e->fv->irq, RTC_PIN);
	assert_int_equal(pl011_new(&e->fv->vm, &uart, NULL), 0);
	assert_int_equal(pl031_new(&e->fv->vm, &rtc, NULL), 0);
	assert_int_equal(pl061_new(&e->fv->vm, PLAT_GPIO_BASE,
				   fake_irq_line(&e->fv->irq, GPIO_PIN), &e->gpio, NULL),
			 0);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	fake_vm_free(e->fv);
	fake_chr_fini(&e->chr);
	free(e);
	return 0;
}

static uint32_t rd(struct env *e, uint64_t base, unsigned reg)
{
	return (uint32_t)fake_mmio_read(e->fv, base + reg, 4);
}

static void wr(struct env *e, uint64_t base, unsigned reg, uint32_t v)
{
	fake_mmio_write(e->fv, base + reg, v, 4);
}

static bool irq(struct env *e, unsigned pin)
{
	return e->fv->irq.line[0] >> pin & 1;
}

static void advance(struct env *e, uint64_t ns)
{
	e->now_ns += (int64_t)ns;
	loop_clock_advance(e->fv->vm.loop, ns);
	fake_vm_settle(e->fv);
}

static void test_ids(void **state)
{
	static const struct {
		uint64_t base;
		uint32_t id;
	} cells[] = {{PLAT_UART_BASE, PL011_PERIPH_ID},
		     {PLAT_RTC_BASE, PL031_PERIPH_ID},
		     {PLAT_GPIO_BASE, PL061_PERIPH_ID}};
	struct env *e = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cells); i++) {
		uint32_t id = 0, cell = 0;

		for (unsigned n = 0; n < 4; n++) {
			id |= rd(e, cells[i].base, PRIMECELL_ID + 4 * n) << 8 * n;
			cell |= rd(e, cells[i].base, PRIMECELL_ID + 16 + 4 * n) << 8 * n;
		}
		assert_int_equal(cell, 0xb105f00d);
		assert_int_equal(id, cells[i].id);
	}
}

static void test_uart_send(void **state)
{
	struct env *e = *state;

	assert_true(rd(e, PLAT_UART_BASE, PL011_FR) & PL011_FR_TXFE);
	wr(e, PLAT_UART_BASE, PL011_IMSC, PL011_INT_TX);
	assert_false(irq(e, UART_PIN));
	for (const char *p = "hello"; *p; p++) {
		wr(e, PLAT_UART_BASE, PL011_DR, (uint8_t)*p);
	}
	fake_vm_settle(e->fv);
	assert_int_equal(e->chr.sent_len, 5);
	assert_memory_equal(e->chr.sent, "hello", 5);
	assert_true(irq(e, UART_PIN));
	assert_int_equal(rd(e, PLAT_UART_BASE, PL011_MIS), PL011_INT_TX);
	wr(e, PLAT_UART_BASE, PL011_ICR, PL011_INT_TX);
	assert_false(irq(e, UART_PIN));
}

/* A back end that takes nothing: the FIFO fills, and after a while what is written is dropped. */
static void test_uart_stall(void **state)
{
	struct env *e = *state;
	unsigned n = 0;

	e->chr.room = 10;
	while (!(rd(e, PLAT_UART_BASE, PL011_FR) & PL011_FR_TXFF) && n < 10000) {
		wr(e, PLAT_UART_BASE, PL011_DR, 'x');
		fake_vm_settle(e->fv);
		n++;
	}
	assert_in_range(n, 4000, 5000);
	advance(e, 600000000);
	assert_false(rd(e, PLAT_UART_BASE, PL011_FR) & PL011_FR_TXFF);
	for (unsigned i = 0; i < 2 * PL011_FIFO_SIZE; i++) {
		wr(e, PLAT_UART_BASE, PL011_DR, i < PL011_FIFO_SIZE ? 'x' : 'y');
	}
	fake_chr_room(&e->chr, SIZE_MAX);
	fake_vm_settle(e->fv);
	assert_in_range(e->chr.sent_len, n,
			n + PL011_FIFO_SIZE); /* there was room for a FIFO */
	assert_null(memchr(e->chr.sent, 'y', e->chr.sent_len));
}

static void test_uart_receive(void **state)
{
	struct env *e = *state;
	char text[41];

	wr(e, PLAT_UART_BASE, PL011_LCRH, PL011_LCRH_FEN | 0x60);
	wr(e, PLAT_UART_BASE, PL011_IMSC, PL011_INT_RX | PL011_INT_RT);
	fake_chr_feed(&e->chr, "a", 1);
	assert_int_equal(rd(e, PLAT_UART_BASE, PL011_MIS), PL011_INT_RT);
	assert_true(irq(e, UART_PIN));
	assert_int_equal(rd(e, PLAT_UART_BASE, PL011_DR), 'a');
	assert_false(irq(e, UART_PIN));
	assert_true(rd(e, PLAT_UART_BASE, PL011_FR) & PL011_FR_RXFE);
	assert_int_equal(rd(e, PLAT_UART_BASE, PL011_DR), 0);
	/* more than the FIFO: nothing is lost */
	fake_chr_feed(&e->chr, "0123456789012345678901234567890123456789", 40);
	assert_true(rd(e, PLAT_UART_BASE, PL011_FR) & PL011_FR_RXFF);
	assert_int_equal(rd(e, PLAT_UART_BASE, PL011_MIS), PL011_INT_RX);
	for (unsigned i = 0; i < 40; i++) {
		fake_vm_settle(e->fv);
		text[i] = (char)rd(e, PLAT_UART_BASE, PL011_DR);
	}
	text[40] = '\0';
	assert_string_equal(text, "0123456789012345678901234567890123456789");
	assert_false(rd(e, PLAT_UART_BASE, PL011_RIS) & PL011_INT_OE);
	/* a break is a byte with a flag */
	e->chr.client.event(e->chr.client.opaque, CHR_BREAK);
	assert_int_equal(rd(e, PLAT_UART_BASE, PL011_DR), PL011_DR_BE);
}

static void test_uart_loopback_and_reset(void **state)
{
	struct env *e = *state;

	wr(e, PLAT_UART_BASE, PL011_LCRH, PL011_LCRH_FEN);
	wr(e, PLAT_UART_BASE, PL011_CR, PL011_CR_UARTEN | PL011_CR_LBE);
	wr(e, PLAT_UART_BASE, PL011_DR, 'l');
	fake_chr_feed(&e->chr, "x", 1);
	assert_int_equal(rd(e, PLAT_UART_BASE, PL011_DR), 'l');
	assert_true(rd(e, PLAT_UART_BASE, PL011_FR) & PL011_FR_RXFE);
	assert_int_equal(e->chr.sent_len, 0);
	wr(e, PLAT_UART_BASE, PL011_IMSC, PL011_INT_MASK);
	wr(e, PLAT_UART_BASE, PL011_DR, 'm');
	assert_true(irq(e, UART_PIN));
	device_list_reset(&e->fv->devices);
	assert_false(irq(e, UART_PIN));
	assert_int_equal(rd(e, PLAT_UART_BASE, PL011_IMSC), 0);
	assert_int_equal(rd(e, PLAT_UART_BASE, PL011_CR), PL011_CR_TXE | PL011_CR_RXE);
	fake_vm_settle(e->fv);
	assert_int_equal(rd(e, PLAT_UART_BASE, PL011_DR), 'x'); /* waited outside */
}

static void test_rtc(void **state)
{
	struct env *e = *state;

	assert_int_equal(rd(e, PLAT_RTC_BASE, PL031_DR), 1000100);
	assert_int_equal(rd(e, PLAT_RTC_BASE, PL031_CR), 1);
	advance(e, UINT64_C(5000000000));
	assert_int_equal(rd(e, PLAT_RTC_BASE, PL031_DR), 1000105);
	wr(e, PLAT_RTC_BASE, PL031_LR, 77);
	assert_int_equal(rd(e, PLAT_RTC_BASE, PL031_DR), 77);
	/* the alarm comes at its second and not before, masked or not */
	wr(e, PLAT_RTC_BASE, PL031_MR, 87);
	advance(e, UINT64_C(9000000000));
	assert_int_equal(rd(e, PLAT_RTC_BASE, PL031_RIS), 0);
	advance(e, UINT64_C(1500000000));
	assert_int_equal(rd(e, PLAT_RTC_BASE, PL031_RIS), 1);
	assert_false(irq(e, RTC_PIN));
	wr(e, PLAT_RTC_BASE, PL031_IMSC, 1);
	assert_true(irq(e, RTC_PIN));
	wr(e, PLAT_RTC_BASE, PL031_ICR, 1);
	assert_false(irq(e, RTC_PIN));
	/* one that lies behind does not come at once */
	wr(e, PLAT_RTC_BASE, PL031_MR, 80);
	advance(e, UINT64_C(20000000000));
	assert_int_equal(rd(e, PLAT_RTC_BASE, PL031_RIS), 0);
}

static void test_gpio_key(void **state)
{
	struct env *e = *state;
	const unsigned key = 1u << PLAT_GPIO_POWER_KEY;

	wr(e, PLAT_GPIO_BASE, PL061_IBE, key);
	wr(e, PLAT_GPIO_BASE, PL061_IE, key);
	pl061_press(e->gpio, PLAT_GPIO_POWER_KEY);
	assert_true(irq(e, GPIO_PIN));
	assert_int_equal(rd(e, PLAT_GPIO_BASE, PL061_DATA + (key << 2)), key);
	assert_int_equal(rd(e, PLAT_GPIO_BASE, PL061_DATA + (0x01 << 2)), 0);
	wr(e, PLAT_GPIO_BASE, PL061_IC, key);
	assert_false(irq(e, GPIO_PIN));
	advance(e, 150000000); /* released: the other edge */
	assert_true(irq(e, GPIO_PIN));
	assert_int_equal(rd(e, PLAT_GPIO_BASE, PL061_DATA + 0x3fc), 0);
	/* by level, active low: pending for as long as it is low */
	wr(e, PLAT_GPIO_BASE, PL061_IC, key);
	wr(e, PLAT_GPIO_BASE, PL061_IS, key);
	assert_true(irq(e, GPIO_PIN));
	wr(e, PLAT_GPIO_BASE, PL061_IEV, key);
	assert_false(irq(e, GPIO_PIN));
}

static void test_gpio_outputs(void **state)
{
	struct env *e = *state;

	wr(e, PLAT_GPIO_BASE, PL061_DIR, 0x0f);
	wr(e, PLAT_GPIO_BASE, PL061_DATA + (0x33 << 2), 0xff);
	assert_int_equal(rd(e, PLAT_GPIO_BASE, PL061_DATA + 0x3fc), 0x03);
	wr(e, PLAT_GPIO_BASE, PL061_DATA + (0x01 << 2), 0);
	assert_int_equal(rd(e, PLAT_GPIO_BASE, PL061_DATA + 0x3fc), 0x02);
	/* an output drives its own interrupt */
	wr(e, PLAT_GPIO_BASE, PL061_IEV, 0x04);
	wr(e, PLAT_GPIO_BASE, PL061_IE, 0x04);
	wr(e, PLAT_GPIO_BASE, PL061_DATA + (0x04 << 2), 0x04);
	assert_true(irq(e, GPIO_PIN));
}

static void test_state(void **state)
{
	struct env *e = *state, *other;
	void *there;
	struct err err;

	setup(&there);
	other = there;
	wr(e, PLAT_UART_BASE, PL011_LCRH, PL011_LCRH_FEN);
	wr(e, PLAT_UART_BASE, PL011_IMSC, PL011_INT_RX | PL011_INT_RT);
	fake_chr_feed(&e->chr, "abc", 3);
	rd(e, PLAT_UART_BASE, PL011_DR);
	e->chr.room = 0;
	wr(e, PLAT_UART_BASE, PL011_DR, 's');
	wr(e, PLAT_RTC_BASE, PL031_LR, 500);
	wr(e, PLAT_RTC_BASE, PL031_MR, 510);
	wr(e, PLAT_RTC_BASE, PL031_IMSC, 1);
	wr(e, PLAT_GPIO_BASE, PL061_IEV, 0xff);
	wr(e, PLAT_GPIO_BASE, PL061_IE, 0xff);
	pl061_press(e->gpio, 3);
	fake_vm_pause(e->fv);
	fake_vm_pause(other->fv);
	assert_int_equal(fake_vm_transfer(e->fv, other->fv, &err), 0);
	device_list_resume(&other->fv->devices);
	fake_vm_settle(other->fv);
	assert_int_equal(other->chr.sent_len, 1);
	assert_int_equal(rd(other, PLAT_UART_BASE, PL011_DR), 'b');
	assert_int_equal(rd(other, PLAT_UART_BASE, PL011_DR), 'c');
	assert_int_equal(rd(other, PLAT_RTC_BASE, PL031_DR), 500);
	assert_int_equal(rd(other, PLAT_GPIO_BASE, PL061_MIS), 8);
	assert_int_equal(rd(other, PLAT_GPIO_BASE, PL061_DATA + 0x3fc), 8);
	advance(other, UINT64_C(11000000000));
	assert_true(irq(other, RTC_PIN));
	assert_int_equal(rd(other, PLAT_GPIO_BASE, PL061_DATA + 0x3fc), 0);
	teardown(&there);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ids, setup, teardown),
		cmocka_unit_test_setup_teardown(test_uart_send, setup, teardown),
		cmocka_unit_test_setup_teardown(test_uart_stall, setup, teardown),
		cmocka_unit_test_setup_teardown(test_uart_receive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_uart_loopback_and_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rtc, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gpio_key, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gpio_outputs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_state, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
