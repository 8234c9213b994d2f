/*
 * A tiny guest on the real /dev/kvm: one VM with 640 KiB of RAM at 0, a few ports that record
 * what the guest says, and code that stands as assembly beside each test. See lab.md, "fast
 * tier", for what such a guest may do where KVM emulates it.
 *
 * Ports:  0x10 any width: what is written goes to said[]   0x11 read: answers 0x5A
 *         0x12 read: 1, 2, 3 …
 *         0xF4 write: ends guest_run(); the vCPU stays in it until the next run or pause
 */
#ifndef TESTS_KVM_GUEST_H
#define TESTS_KVM_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdatomic.h>

#include "kvm/x86.h"

#define GUEST_RAM    0xA0000
#define GUEST_CODE   0x10000 /* where guest_load() puts it */
#define GUEST_STACK  0x9000
#define GUEST_TABLES 0x1000 /* of 64-bit mode */
#define GUEST_IDT    0x8000
#define GUEST_SAID   4096

/* Code between two labels of an asm statement. */
#define GUEST_CODE_OF(name) extern const uint8_t name##_start[], name##_end[]

struct guest {
	struct loop *loop;
	struct mem *mem;
	struct mem_region *ram;
	struct bus *bus;
	struct kvm_vm *vm;
	struct bus_region say, answer, count, end;
	struct power power;
	_Atomic int power_request; /* -1: none */
	_Atomic unsigned said_count;
	uint32_t said[GUEST_SAID];
	uint8_t said_size[GUEST_SAID];
	_Atomic uint32_t counter;
	_Atomic unsigned inits; /* calls of thread_init */
	_Atomic unsigned eois;
	_Atomic unsigned eoi_vector;
	_Atomic bool held; /* a vCPU is in port 0xF4 */
	bool paused;
	/* set before guest_new() */
	void (*on_count)(struct guest *g);
	bool count_on_loop; /* port 0x12 is served by the control loop */
};

/* Skips the test where there is no /dev/kvm. */
void guest_need_kvm(void);
/* *g is zeroed but for the last fields; makes everything, with n vCPUs that are not reset yet. */
void guest_new(struct guest *g, unsigned n);
void guest_free(struct guest *g);
void guest_load(struct guest *g, const uint8_t *start, const uint8_t *end);
/* Resets vCPU 0 to GUEST_CODE in real mode (CS base 0) or in 64-bit mode; others wait. */
void guest_reset_real(struct guest *g);
void guest_reset_long(struct guest *g);
/* An interrupt gate of 64-bit mode. offset: from GUEST_CODE. */
void guest_set_gate(struct guest *g, unsigned vector, uint32_t offset);
/* Resumes and runs the loop until the guest writes to port 0xF4 or asks for power; fails the
 * test after 20 seconds. */
void guest_run(struct guest *g);
/* Pauses and waits for it. */
void guest_pause(struct guest *g);
/* Runs the loop until cond(g); fails after 20 seconds. */
void guest_wait(struct guest *g, bool (*cond)(struct guest *g));

#endif
