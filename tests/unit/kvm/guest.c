/* See guest.h. */
#include "guest.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch/x86/cpuid.h"
#include "arch/x86/regs.h"
#include "base/util.h"

#define TIMEOUT_NS (20 * UINT64_C(1000000000))

void guest_need_kvm(void)
{
	if (access("/dev/kvm", R_OK | W_OK) != 0) {
		print_message("skipped: no /dev/kvm\n");
		skip();
	}
}

static void say_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct guest *g = opaque;
	unsigned n = atomic_load(&g->said_count);

	assert_true(n < GUEST_SAID);
	g->said[n] = (uint32_t)value;
	g->said_size[n] = size;
	atomic_store(&g->said_count, n + 1);
}

static uint64_t answer_read(void *opaque, uint64_t off, unsigned size)
{
	return 0x5A;
}

static uint64_t count_read(void *opaque, uint64_t off, unsigned size)
{
	struct guest *g = opaque;
	uint32_t n = atomic_fetch_add(&g->counter, 1) + 1;

	if (g->on_count) {
		g->on_count(g);
	}
	return n;
}

static void end_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct guest *g = opaque;

	atomic_store(&g->held, true);
	loop_stop(g->loop);
	while (atomic_load(&g->held)) {
		usleep(50);
	}
}

static const struct bus_ops say_ops = {.write = say_write};
static const struct bus_ops answer_ops = {.read = answer_read};
static const struct bus_ops count_ops = {.read = count_read};
static const struct bus_ops end_ops = {.write = end_write};

static void power_request(struct power *p, enum power_request what)
{
	struct guest *g = container_of(p, struct guest, power);

	atomic_store(&g->power_request, (int)what);
	loop_stop(g->loop);
}

static void thread_init(void *arg)
{
	struct guest *g = arg;

	atomic_fetch_add(&g->inits, 1);
}

static void ioapic_eoi(void *opaque, uint8_t vector)
{
	struct guest *g = opaque;

	atomic_store(&g->eoi_vector, vector);
	atomic_fetch_add(&g->eois, 1);
}

static void add_port(struct guest *g, struct bus_region *r, const char *name, uint16_t port,
		     unsigned size, const struct bus_ops *ops)
{
	*r = (struct bus_region){
		.name = name,
		.space = BUS_PIO,
		.base = port,
		.size = size,
		.ops = ops,
		.opaque = g,
	};
	if (r == &g->count && g->count_on_loop) {
		r->owner = g->loop;
		r->owner_reads = true;
	}
	assert_int_equal(bus_add(g->bus, r), 0);
}

void guest_new(struct guest *g, unsigned n)
{
	struct kvm_vm_config cfg = {0};
	struct x86_cpu_model model;
	struct kvm_cpuid2 *supported;
	struct err err = {0};

	atomic_store(&g->power_request, -1);
	g->power.request = power_request;
	assert_int_equal(loop_new(&g->loop, "test", 0), 0);
	assert_int_equal(mem_new(&g->mem), 0);
	assert_int_equal(bus_new(&g->bus), 0);
	assert_int_equal(mem_region_add(g->mem, "ram", 0, GUEST_RAM, MEM_RAM, 0, &g->ram, &err),
			 0);
	add_port(g, &g->say, "say", 0x0C, 5, &say_ops);
	add_port(g, &g->answer, "answer", 0x11, 1, &answer_ops);
	add_port(g, &g->count, "count", 0x12, 4, &count_ops);
	add_port(g, &g->end, "end", 0xF4, 4, &end_ops);
	cfg.loop = g->loop;
	cfg.mem = g->mem;
	cfg.bus = g->bus;
	cfg.power = &g->power;
	cfg.thread_init = thread_init;
	cfg.thread_arg = g;
	cfg.ioapic_eoi = ioapic_eoi;
	cfg.ioapic_opaque = g;
	if (kvm_vm_new(&cfg, &g->vm, &err) < 0) {
		fail_msg("%s", err.msg);
	}
	if (kvm_supported_cpuid(g->vm, &supported, &err) < 0 ||
	    x86_cpu_model_parse(&model, "host", &err) < 0) {
		fail_msg("%s", err.msg);
	}
	for (unsigned i = 0; i < n; i++) {
		struct x86_cpuid_config c = {
			.supported = supported,
			.model = &model,
			.topo = {1, 1, n, 1},
			.phys_bits = x86_phys_bits_host(supported),
		};
		struct kvm_cpuid2 *cpuid;
		struct kvm_vcpu *v;

		if (x86_cpuid_build(&c, i, &cpuid, &err) < 0 ||
		    kvm_vcpu_new(g->vm, i, x86_apic_id(&c.topo, i), cpuid, &v, &err) < 0) {
			fail_msg("%s", err.msg);
		}
		free(cpuid);
	}
	free(supported);
	if (kvm_vcpus_start(g->vm, &err) < 0) {
		fail_msg("%s", err.msg);
	}
}

void guest_free(struct guest *g)
{
	guest_pause(g);
	kvm_vm_free(g->vm);
	bus_free(g->bus);
	mem_free(g->mem);
	loop_free(g->loop);
}

void guest_load(struct guest *g, const uint8_t *start, const uint8_t *end)
{
	assert_int_equal(mem_write(g->mem, GUEST_CODE, start, end - start), 0);
}

static void reset(struct guest *g, struct kvm_x86_init *boot)
{
	struct kvm_x86_init ap = {.runnable = false};
	struct err err = {0};

	boot->runnable = true;
	x86_regs_reset(&ap.regs, &ap.sregs, false, 0);
	for (unsigned i = 0; i < kvm_vm_vcpu_count(g->vm); i++) {
		if (kvm_vcpu_reset(kvm_vm_vcpu(g->vm, i), i ? &ap : boot, &err) < 0) {
			fail_msg("%s", err.msg);
		}
	}
}

void guest_reset_real(struct guest *g)
{
	struct kvm_x86_init init = {0};

	x86_regs_reset(&init.regs, &init.sregs, true, 0);
	init.sregs.cs.base = GUEST_CODE;
	init.sregs.cs.selector = GUEST_CODE >> 4;
	init.regs.rip = 0;
	init.regs.rsp = GUEST_STACK;
	reset(g, &init);
}

void guest_reset_long(struct guest *g)
{
	struct kvm_x86_init init = {0};

	assert_int_equal(x86_boot_tables_write(g->mem, GUEST_TABLES, NULL), 0);
	x86_regs_long_mode(&init.regs, &init.sregs, GUEST_TABLES, GUEST_CODE, 0);
	init.regs.rsp = GUEST_STACK + 0x1000;
	init.sregs.idt.base = GUEST_IDT;
	init.sregs.idt.limit = 0xFFF;
	init.mtrr_def_type = X86_BOOT_MTRR;
	reset(g, &init);
}

void guest_set_gate(struct guest *g, unsigned vector, uint32_t offset)
{
	uint64_t at = GUEST_CODE + offset;
	uint64_t gate[2] = {
		(at & 0xFFFF) | 0x10u << 16 | UINT64_C(0x8E00) << 32 |
			(at >> 16 & 0xFFFF) << 48,
		at >> 32,
	};

	assert_int_equal(mem_write(g->mem, GUEST_IDT + vector * 16, gate, sizeof(gate)), 0);
}

static void timed_out(void *opaque)
{
	fail_msg("the guest did not get there in 20 seconds");
}

void guest_run(struct guest *g)
{
	struct loop_timer t;

	loop_timer_init(g->loop, &t, timed_out, NULL);
	loop_timer_arm(&t, loop_now_ns(g->loop) + TIMEOUT_NS);
	atomic_store(&g->held, false); /* first: the guest may be back before we look */
	if (kvm_vcpus_paused(g->vm)) {
		kvm_vcpus_resume(g->vm);
	}
	loop_run(g->loop);
	loop_timer_disarm(&t);
}

void guest_wait(struct guest *g, bool (*cond)(struct guest *g))
{
	uint64_t until = now_ns() + TIMEOUT_NS;

	while (!cond(g)) {
		loop_step(g->loop, 10);
		assert_true(now_ns() < until);
	}
}

static void pause_done(void *opaque)
{
	struct guest *g = opaque;

	assert_true(loop_is_current(g->loop));
	g->paused = true;
}

static bool is_paused(struct guest *g)
{
	return g->paused;
}

void guest_pause(struct guest *g)
{
	g->paused = false;
	kvm_vcpus_pause(g->vm, pause_done, g);
	assert_false(g->paused); /* never from inside */
	atomic_store(&g->held, false);
	guest_wait(g, is_paused);
	assert_true(kvm_vcpus_paused(g->vm));
}
