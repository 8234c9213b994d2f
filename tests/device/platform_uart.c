/*
 * 16550A: identification as drivers do it, interrupts and their priorities, FIFO trigger levels
 * and timeout, loopback, a back end that is full or never read, state, threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "device/platform/serial.h"
#include "fake_chr.h"
#include "fakes/fakes.h"
#include "spec/platform_x86.h"
#include "spec/uart16550.h"

struct env {
	struct fake_vm *fv;
	struct chr chr;
};

static struct env *env_new(void)
{
	struct env *e = calloc(1, sizeof(*e));
	struct serial_config cfg = {.id = "serial0", .base = PLAT_UART_PORT, .chr = &e->chr};

	e->fv = fake_vm_new(NULL);
	fake_chr_init(&e->chr);
	cfg.line = fake_irq_line(&e->fv->irq, 4);
	assert_int_equal(uart_new(&e->fv->vm, &cfg, NULL), 0);
	return e;
}

static void env_free(struct env *e)
{
	fake_vm_free(e->fv);
	fake_chr_fini(&e->chr);
	free(e);
}

static int setup(void **state)
{
	*state = env_new();
	return 0;
}

static int teardown(void **state)
{
	env_free(*state);
	return 0;
}

static uint8_t rd(struct env *e, unsigned reg)
{
	return (uint8_t)fake_pio_read(e->fv, (uint16_t)(PLAT_UART_PORT + reg), 1);
}

static void wr(struct env *e, unsigned reg, uint8_t v)
{
	fake_pio_write(e->fv, (uint16_t)(PLAT_UART_PORT + reg), v, 1);
}

static bool irq(struct env *e)
{
	return e->fv->irq.line[0] & 1u << 4;
}

static void settle(struct env *e)
{
	fake_vm_settle(e->fv);
}

static void advance(struct env *e, uint64_t ns)
{
	loop_clock_advance(e->fv->vm.loop, ns);
	settle(e);
}

/* What Linux's 8250 driver asks to tell the chips apart. */
static void test_identify(void **state)
{
	struct env *e = *state;

	wr(e, UART_IER, 0);
	assert_int_equal(rd(e, UART_IER), 0);
	wr(e, UART_IER, 0xff);
	assert_int_equal(rd(e, UART_IER), 0x0f);
	wr(e, UART_IER, 0);
	wr(e, UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
	assert_int_equal(rd(e, UART_MSR) & 0xf0, UART_MSR_DCD | UART_MSR_CTS);
	wr(e, UART_MCR, 0);
	assert_int_equal(rd(e, UART_MSR) & 0xf0, UART_MSR_CTS | UART_MSR_DSR | UART_MSR_DCD);
	wr(e, UART_FCR, UART_FCR_ENABLE);
	assert_int_equal(rd(e, UART_IIR), UART_IIR_FIFO | UART_IIR_NONE);
	wr(e, UART_FCR, 0);
	assert_int_equal(rd(e, UART_IIR), UART_IIR_NONE);
	wr(e, UART_SCR, 0xa5);
	assert_int_equal(rd(e, UART_SCR), 0xa5);
	/* no 16650, no 16750: DLAB hides what it should, EFR is not there */
	wr(e, UART_LCR, UART_LCR_DLAB | 3);
	wr(e, UART_DLL, 0x34);
	wr(e, UART_DLM, 0x12);
	assert_int_equal(rd(e, UART_DLL), 0x34);
	assert_int_equal(rd(e, UART_DLM), 0x12);
	wr(e, UART_LCR, 3);
	assert_int_equal(rd(e, UART_IER), 0);
	assert_int_equal(rd(e, UART_LCR), 3);
	assert_int_equal(rd(e, UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	assert_int_equal(rd(e, UART_RBR), 0);
	device_list_reset(&e->fv->devices);
	assert_int_equal(rd(e, UART_SCR), 0);
	assert_int_equal(rd(e, UART_LCR), 0);
}

static void test_send(void **state)
{
	struct env *e = *state;
	uint64_t edges;

	/* polled: never has to wait */
	for (const char *s = "hello"; *s; s++) {
		assert_int_equal(rd(e, UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
		wr(e, UART_THR, (uint8_t)*s);
	}
	settle(e);
	assert_int_equal(e->chr.sent_len, 5);
	assert_memory_equal(e->chr.sent, "hello", 5);
	assert_int_equal(e->chr.writes, 1); /* all in one */
	assert_false(irq(e));
	/* by interrupt: enabling fires, reading IIR answers, what was sent fires again, once */
	wr(e, UART_IER, UART_IER_ETBEI);
	assert_true(irq(e));
	assert_int_equal(rd(e, UART_IIR), UART_IIR_THRI);
	assert_false(irq(e));
	assert_int_equal(rd(e, UART_IIR), UART_IIR_NONE);
	edges = e->fv->irq.edges[4];
	for (int i = 0; i < 16; i++) {
		wr(e, UART_THR, 'x');
	}
	settle(e);
	assert_true(irq(e));
	assert_int_equal(e->fv->irq.edges[4], edges + 1);
	/* writing answers as well */
	wr(e, UART_THR, 'y');
	assert_false(irq(e));
	settle(e);
	assert_true(irq(e));
	assert_int_equal(e->chr.sent_len, 5 + 17);
	wr(e, UART_IER, 0);
	assert_false(irq(e));
	wr(e, UART_IER, UART_IER_ETBEI);
	assert_true(irq(e));
}

static void test_receive(void **state)
{
	struct env *e = *state;

	/* without FIFO: byte by byte, the rest waits outside */
	fake_chr_feed(&e->chr, "abc", 3);
	assert_int_equal(e->chr.in_len, 2);
	assert_int_equal(rd(e, UART_LSR) & UART_LSR_DR, UART_LSR_DR);
	assert_false(irq(e));
	wr(e, UART_IER, UART_IER_ERBFI);
	assert_true(irq(e));
	assert_int_equal(rd(e, UART_IIR), UART_IIR_RDI);
	assert_int_equal(rd(e, UART_RBR), 'a');
	assert_false(irq(e));
	settle(e);
	assert_true(irq(e));
	assert_int_equal(rd(e, UART_RBR), 'b');
	settle(e);
	assert_int_equal(rd(e, UART_RBR), 'c');
	settle(e);
	assert_int_equal(rd(e, UART_LSR) & UART_LSR_DR, 0);

	/* FIFO, trigger at 8 */
	wr(e, UART_FCR, UART_FCR_ENABLE | 0x80);
	fake_chr_feed(&e->chr, "0123456", 7);
	assert_false(irq(e));
	fake_chr_feed(&e->chr, "7", 1);
	assert_true(irq(e));
	assert_int_equal(rd(e, UART_IIR), UART_IIR_FIFO | UART_IIR_RDI);
	fake_chr_feed(&e->chr, "89abcdefghij", 12);
	assert_int_equal(e->chr.in_len, 4); /* 16 are in */
	assert_int_equal(rd(e, UART_RBR), '0');
	settle(e);
	assert_int_equal(e->chr.in_len, 4); /* not before it is half empty */
	for (int i = 1; i < 8; i++) {
		assert_int_equal(rd(e, UART_RBR), "0123456789"[i]);
	}
	settle(e);
	assert_int_equal(e->chr.in_len, 0);
	for (int i = 8; i < 20; i++) {
		assert_int_equal(rd(e, UART_RBR), "0123456789abcdefghij"[i]);
	}
	assert_false(irq(e));
	/* clearing the receiver */
	fake_chr_feed(&e->chr, "zzzzzzzzzzzzzzzzy", 17);
	wr(e, UART_FCR, UART_FCR_ENABLE | UART_FCR_CLEAR_RX);
	settle(e);
	assert_int_equal(rd(e, UART_RBR), 'y');
}

static void test_timeout(void **state)
{
	struct env *e = *state;
	/* 115200 baud, 8N1: 40 bits take 347 us */
	const uint64_t wait = 4 * 10 * UINT64_C(1000000000) / 115200;

	wr(e, UART_LCR, UART_LCR_DLAB);
	wr(e, UART_DLL, 1);
	wr(e, UART_LCR, 3);
	wr(e, UART_IER, UART_IER_ERBFI);
	wr(e, UART_FCR, UART_FCR_ENABLE | 0xc0);
	fake_chr_feed(&e->chr, "ab", 2);
	settle(e);
	assert_false(irq(e));
	advance(e, wait - 1000);
	assert_false(irq(e));
	fake_chr_feed(&e->chr, "c", 1); /* a byte comes: from the beginning */
	advance(e, 2000);
	assert_false(irq(e));
	advance(e, wait);
	assert_true(irq(e));
	assert_int_equal(rd(e, UART_IIR), UART_IIR_FIFO | UART_IIR_TIMEOUT);
	/* reading a byte ends it, the bytes left start it anew */
	assert_int_equal(rd(e, UART_RBR), 'a');
	assert_false(irq(e));
	settle(e);
	advance(e, wait + 1000);
	assert_int_equal(rd(e, UART_IIR), UART_IIR_FIFO | UART_IIR_TIMEOUT);
	assert_int_equal(rd(e, UART_RBR), 'b');
	assert_int_equal(rd(e, UART_RBR), 'c');
	settle(e);
	advance(e, 10 * wait);
	assert_false(irq(e));
	/* a divisor that would make it minutes */
	wr(e, UART_LCR, UART_LCR_DLAB);
	wr(e, UART_DLM, 0xff);
	wr(e, UART_LCR, 0x1f);
	fake_chr_feed(&e->chr, "d", 1);
	advance(e, 1100000000);
	assert_int_equal(rd(e, UART_IIR), UART_IIR_FIFO | UART_IIR_TIMEOUT);
}

static void test_errors(void **state)
{
	struct env *e = *state;

	wr(e, UART_IER, UART_IER_ELSI | UART_IER_ERBFI);
	wr(e, UART_FCR, UART_FCR_ENABLE);
	fake_chr_feed(&e->chr, "a", 1);
	e->chr.client.event(e->chr.client.opaque, CHR_BREAK);
	fake_chr_feed(&e->chr, "b", 1);
	/* the break stands behind 'a': known as an error in the FIFO, not yet as a break */
	assert_int_equal(rd(e, UART_LSR),
			 UART_LSR_DR | UART_LSR_ERRF | UART_LSR_THRE | UART_LSR_TEMT);
	assert_int_equal(rd(e, UART_IIR), UART_IIR_FIFO | UART_IIR_RDI);
	assert_int_equal(rd(e, UART_RBR), 'a');
	assert_int_equal(rd(e, UART_IIR), UART_IIR_FIFO | UART_IIR_RLSI);
	assert_true(rd(e, UART_LSR) & UART_LSR_BI);
	assert_int_equal(rd(e, UART_LSR), UART_LSR_DR | UART_LSR_THRE | UART_LSR_TEMT);
	assert_int_equal(rd(e, UART_IIR), UART_IIR_FIFO | UART_IIR_RDI);
	assert_int_equal(rd(e, UART_RBR), 0);
	assert_int_equal(rd(e, UART_RBR), 'b');
	/* overrun, in loopback, where nobody asks for room */
	wr(e, UART_MCR, UART_MCR_LOOP);
	for (int i = 0; i < 17; i++) {
		wr(e, UART_THR, (uint8_t)('A' + i));
	}
	assert_int_equal(rd(e, UART_IIR), UART_IIR_FIFO | UART_IIR_RLSI);
	assert_true(rd(e, UART_LSR) & UART_LSR_OE);
	assert_false(rd(e, UART_LSR) & UART_LSR_OE);
	for (int i = 0; i < 16; i++) {
		assert_int_equal(rd(e, UART_RBR), 'A' + i);
	}
	assert_int_equal(e->chr.sent_len, 0);
}

static void test_modem(void **state)
{
	struct env *e = *state;

	wr(e, UART_IER, UART_IER_EDSSI);
	wr(e, UART_MCR, UART_MCR_LOOP);
	assert_true(irq(e));
	assert_int_equal(rd(e, UART_IIR), UART_IIR_MSI);
	assert_int_equal(rd(e, UART_MSR), UART_MSR_DCTS | UART_MSR_DDSR | UART_MSR_DDCD);
	assert_false(irq(e));
	wr(e, UART_MCR, UART_MCR_LOOP | UART_MCR_OUT1 | UART_MCR_DTR);
	assert_int_equal(rd(e, UART_MSR), UART_MSR_RI | UART_MSR_DSR | UART_MSR_DDSR);
	wr(e, UART_MCR, UART_MCR_LOOP | UART_MCR_DTR);
	assert_int_equal(rd(e, UART_MSR), UART_MSR_DSR | UART_MSR_TERI);
	/* no input from outside meanwhile, afterwards again */
	fake_chr_feed(&e->chr, "x", 1);
	assert_int_equal(e->chr.in_len, 1);
	wr(e, UART_MCR, 0);
	settle(e);
	assert_int_equal(rd(e, UART_RBR), 'x');
}

/* The back end is slow: nothing is lost, THRE tells. */
static void test_slow(void **state)
{
	struct env *e = *state;
	unsigned n = 0, k;

	e->chr.room = 100;
	while (rd(e, UART_LSR) & UART_LSR_THRE) {
		wr(e, UART_THR, (uint8_t)n++);
		settle(e);
		assert_true(n < 10000);
	}
	assert_int_equal(e->chr.sent_len, 100);
	assert_in_range(n, 4096, 4200);
	wr(e, UART_IER, UART_IER_ETBEI);
	assert_false(irq(e));
	fake_chr_room(&e->chr, 15);
	assert_true(irq(e));
	assert_true(rd(e, UART_LSR) & UART_LSR_THRE);
	fake_chr_room(&e->chr, SIZE_MAX);
	settle(e);
	assert_int_equal(e->chr.sent_len, n);
	for (k = 0; k < n; k++) {
		assert_int_equal(e->chr.sent[k], (uint8_t)k);
	}
}

/* Nobody reads: the guest goes on after half a second, and so does the back end once it moves. */
static void test_stuck(void **state)
{
	struct env *e = *state;
	unsigned n = 0;
	size_t before;

	e->chr.room = 0;
	while (rd(e, UART_LSR) & UART_LSR_THRE) {
		wr(e, UART_THR, 'x');
		n++;
		settle(e);
	}
	wr(e, UART_IER, UART_IER_ETBEI);
	advance(e, 400000000);
	assert_false(irq(e));
	advance(e, 101000000);
	assert_false(rd(e, UART_IIR) == UART_IIR_NONE);
	assert_true(rd(e, UART_LSR) & UART_LSR_THRE);
	for (int i = 0; i < 1000; i++) {
		wr(e, UART_THR, 'y');
		n++;
	}
	assert_int_equal(e->chr.sent_len, 0);
	/* what was in the ring comes, what was written beyond it does not */
	fake_chr_room(&e->chr, SIZE_MAX);
	settle(e);
	before = e->chr.sent_len;
	assert_int_equal(before, 4096);
	wr(e, UART_THR, 'z');
	settle(e);
	assert_int_equal(e->chr.sent_len, before + 1);
	/* another peer instead of the one that was stuck */
	e->chr.room = 0;
	for (int i = 0; i < 100; i++) {
		wr(e, UART_THR, 'a');
	}
	settle(e);
	e->chr.room = SIZE_MAX;
	e->chr.client.event(e->chr.client.opaque, CHR_CLOSED);
	settle(e);
	assert_int_equal(e->chr.sent_len, before + 101);
}

static void test_state(void **state)
{
	struct env *a = *state, *b = env_new();
	struct err err;

	wr(a, UART_LCR, UART_LCR_DLAB);
	wr(a, UART_DLL, 7);
	wr(a, UART_LCR, 3);
	wr(a, UART_SCR, 0x99);
	wr(a, UART_FCR, UART_FCR_ENABLE | 0x40);
	wr(a, UART_IER, UART_IER_ERBFI | UART_IER_ETBEI | UART_IER_ELSI);
	wr(a, UART_MCR, UART_MCR_OUT2 | UART_MCR_RTS);
	/* move the FIFO's head, leave a break and bytes, and output that the back end refuses */
	fake_chr_feed(&a->chr, "1234567", 7);
	for (int i = 0; i < 6; i++) {
		rd(a, UART_RBR);
	}
	a->chr.client.event(a->chr.client.opaque, CHR_BREAK);
	fake_chr_feed(&a->chr, "89", 2);
	a->chr.room = 3;
	for (const char *s = "output"; *s; s++) {
		wr(a, UART_THR, (uint8_t)*s);
	}
	settle(a);
	assert_int_equal(a->chr.sent_len, 3);
	fake_vm_pause(a->fv);
	fake_chr_feed(&a->chr, "late", 4);
	assert_int_equal(a->chr.in_len, 4); /* paused: nothing comes in */
	fake_vm_pause(b->fv);
	assert_int_equal(fake_vm_transfer(a->fv, b->fv, &err), 0);
	device_list_resume(&b->fv->devices);
	settle(b);
	assert_int_equal(b->chr.sent_len, 3);
	assert_memory_equal(b->chr.sent, "put", 3);
	assert_int_equal(rd(b, UART_SCR), 0x99);
	assert_int_equal(rd(b, UART_IIR), UART_IIR_FIFO | UART_IIR_RDI);
	assert_int_equal(rd(b, UART_RBR), '7');
	assert_int_equal(rd(b, UART_IIR), UART_IIR_FIFO | UART_IIR_RLSI);
	assert_true(rd(b, UART_LSR) & UART_LSR_BI);
	assert_int_equal(rd(b, UART_RBR), 0);
	assert_int_equal(rd(b, UART_RBR), '8');
	assert_int_equal(rd(b, UART_RBR), '9');
	assert_int_equal(rd(b, UART_LSR) & UART_LSR_DR, 0);
	wr(b, UART_LCR, UART_LCR_DLAB);
	assert_int_equal(rd(b, UART_DLL), 7);
	/* the first machine goes on, too */
	device_list_resume(&a->fv->devices);
	settle(a);
	assert_int_equal(a->chr.in_len, 0);
	fake_chr_room(&a->chr, SIZE_MAX);
	settle(a);
	assert_memory_equal(a->chr.sent, "output", 6);
	env_free(b);
}

static void test_last_words(void **state)
{
	struct fake_vm *fv = fake_vm_new(NULL);
	struct chr *c = calloc(1, sizeof(*c));
	struct serial_config cfg = {.id = "serial0", .base = PLAT_UART_PORT, .chr = c};
	struct serial_config none = {.id = "serial1", .base = 0x2f8};
	struct serial_config second = {.id = "serial2", .base = 0x3e8, .chr = c};
	struct err err;

	fake_chr_init(c);
	cfg.line = fake_irq_line(&fv->irq, 4);
	assert_int_equal(uart_new(&fv->vm, &cfg, &err), 0);
	/* taken ports, taken back end, no back end */
	assert_int_equal(uart_new(&fv->vm, &cfg, &err), -EEXIST);
	assert_int_equal(uart_new(&fv->vm, &second, &err), -EBUSY);
	assert_int_equal(uart_new(&fv->vm, &none, &err), 0);
	for (int i = 0; i < 10000; i++) {
		fake_pio_write(fv, 0x2f8, 'x', 1);
	}
	assert_int_equal(fake_pio_read(fv, 0x2f8 + UART_LSR, 1), UART_LSR_THRE | UART_LSR_TEMT);
	/* destroyed with bytes in the ring and work posted */
	fake_pio_write(fv, PLAT_UART_PORT, '!', 1);
	fake_vm_free(fv);
	assert_int_equal(c->sent_len, 1);
	fake_chr_fini(c);
	free(c);
}

/* A vCPU that prints by interrupt, a loop that takes: every byte, in order. */
#define BYTES 40000
struct printer {
	struct env *e;
	_Atomic bool done;
};

static void *printer_main(void *arg)
{
	struct printer *p = arg;
	struct fake_cpu cpu;
	unsigned n = 0, spins = 0;

	fake_cpu_init(&cpu, p->e->fv);
	fake_cpu_pio_write(&cpu, PLAT_UART_PORT + UART_FCR, UART_FCR_ENABLE, 1);
	fake_cpu_pio_write(&cpu, PLAT_UART_PORT + UART_IER, UART_IER_ETBEI, 1);
	while (n < BYTES) {
		if ((fake_cpu_pio_read(&cpu, PLAT_UART_PORT + UART_IIR, 1) & 0x0f) !=
		    UART_IIR_THRI) {
			/* an interrupt has to come */
			assert_true(++spins < 50000000);
			sched_yield();
			continue;
		}
		spins = 0;
		for (unsigned i = 0; i < 16 && n < BYTES; i++) {
			fake_cpu_pio_write(&cpu, PLAT_UART_PORT, (uint8_t)(n * 7), 1);
			n++;
		}
	}
	fake_cpu_fini(&cpu);
	p->done = true;
	return NULL;
}

static void test_threads(void **state)
{
	struct env *e = *state;
	struct printer p = {.e = e};
	pthread_t t;

	e->chr.room = 0;
	assert_int_equal(pthread_create(&t, NULL, printer_main, &p), 0);
	while (!p.done) {
		loop_step(e->fv->vm.loop, 1);
		fake_chr_room(&e->chr, 333);
	}
	pthread_join(t, NULL);
	fake_chr_room(&e->chr, SIZE_MAX);
	settle(e);
	assert_int_equal(e->chr.sent_len, BYTES);
	for (unsigned i = 0; i < BYTES; i++) {
		assert_int_equal(e->chr.sent[i], (uint8_t)(i * 7));
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_identify),
		T(test_send),
		T(test_receive),
		T(test_timeout),
		T(test_errors),
		T(test_modem),
		T(test_slow),
		T(test_stuck),
		T(test_state),
		T(test_threads),
		cmocka_unit_test(test_last_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
