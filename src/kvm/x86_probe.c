/*
 * How fast guest kernel code runs: a guest of 64 KiB counts to a million in protected mode at
 * privilege level 0 and writes to a port. About 1 ms on hardware, 20 ms where the processor is
 * itself emulated but KVM is the usual one, 2 s where KVM interprets each instruction
 * (kvm_pvm). The time is bounded by a signal.
 *
 * Threads: main, in a process that does nothing else (it takes SIGALRM over for the while).
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/util.h"
#include "kvm/x86_int.h"
#include "spec/platform_x86.h"

#define RAM_SIZE  0x10000u
#define CODE	  0x1000u
#define LIMIT_S	  5
#define CR0_PE	  1u
#define RFLAGS_ON 2u /* a bit that is always set */

static const uint8_t loop_code[] = {
	0xb9, 0x40, 0x42, 0x0f, 0x00, /* mov ecx, 1000000 */
	0x49,			      /* again: dec ecx */
	0x75, 0xfd,		      /* jnz again */
	0xe6, 0x10,		      /* out 0x10, al */
	0xf4,			      /* hlt */
};

static void on_alarm(int sig)
{
	/* it is enough that KVM_RUN was interrupted */
}

static struct kvm_segment flat(uint8_t type, uint16_t selector)
{
	return (struct kvm_segment){
		.limit = UINT32_MAX,
		.selector = selector,
		.type = type,
		.present = 1,
		.db = 1,
		.s = 1,
		.g = 1,
	};
}

/* #ioctls(start): KVM_GET_SREGS KVM_SET_SREGS KVM_SET_REGS */
static int set_registers(int vcpu)
{
	const struct kvm_regs regs = {.rip = CODE, .rflags = RFLAGS_ON};
	struct kvm_sregs s;
	int r = kvm_ioctl(vcpu, KVM_GET_SREGS, &s);

	s.cs = flat(0xb, 8);
	s.ds = s.es = s.fs = s.gs = s.ss = flat(3, 16);
	s.cr0 |= CR0_PE;
	r = r < 0 ? r : kvm_ioctl(vcpu, KVM_SET_SREGS, &s);
	return r < 0 ? r : kvm_ioctl(vcpu, KVM_SET_REGS, (void *)(uintptr_t)&regs);
}

/* Microseconds, UINT64_MAX: more than LIMIT_S seconds.
 * #syscalls(start): rt_sigaction setitimer
 * #ioctls(start): KVM_RUN */
static int run(int vcpu, const struct kvm_run *run_area, uint64_t *us, struct err *err)
{
	const struct itimerval limit = {.it_value.tv_sec = LIMIT_S}, off = {0};
	struct sigaction sa = {.sa_handler = on_alarm}, old;
	uint64_t start = now_ns();
	int r;

	sigemptyset(&sa.sa_mask);
	sigaction(SIGALRM, &sa, &old);
	setitimer(ITIMER_REAL, &limit, NULL);
	do {
		r = kvm_ioctl(vcpu, KVM_RUN, NULL);
		*us = (now_ns() - start) / 1000;
	} while ((r == -EINTR || r == -EAGAIN) && *us < LIMIT_S * UINT64_C(1000000));
	setitimer(ITIMER_REAL, &off, NULL);
	sigaction(SIGALRM, &old, NULL);
	if (r == -EINTR) {
		*us = UINT64_MAX;
		return 0;
	}
	if (r < 0) {
		return err_set(err, -r, "KVM cannot run a guest: %s", strerror(-r));
	}
	if (run_area->exit_reason != KVM_EXIT_IO) {
		return err_set(err, EIO,
			       "a guest of a few instructions ends with KVM's exit reason %u",
			       run_area->exit_reason);
	}
	return 0;
}

/* #ioctls(start): KVM_CREATE_VCPU KVM_GET_VCPU_MMAP_SIZE
 * #syscalls(start): mmap munmap */
static int probe_vcpu(int sys_fd, int vm, uint64_t *us, struct err *err)
{
	int size = kvm_ioctl(sys_fd, KVM_GET_VCPU_MMAP_SIZE, NULL), vcpu, r;
	struct kvm_run *area;

	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0UL);
	if (vcpu < 0 || size < (int)sizeof(*area)) {
		r = vcpu < 0 ? errno : EIO;
		goto close_vcpu;
	}
	area = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (area == MAP_FAILED) {
		r = errno;
		goto close_vcpu;
	}
	r = -set_registers(vcpu);
	if (r <= 0) {
		r = run(vcpu, area, us, err);
		munmap(area, (size_t)size);
		close(vcpu);
		return r;
	}
	munmap(area, (size_t)size);
close_vcpu:
	if (vcpu >= 0) {
		close(vcpu);
	}
	return err_set(err, r, "KVM cannot make a vCPU: %s", strerror(r));
}

/* #ioctls(start): KVM_CREATE_VM KVM_SET_USER_MEMORY_REGION KVM_SET_TSS_ADDR
 * #ioctls(start): KVM_SET_IDENTITY_MAP_ADDR */
int x86_probe_loop(int sys_fd, uint64_t *us, struct err *err)
{
	uint64_t identity = PLAT_IDENTITY_MAP;
	struct kvm_userspace_memory_region slot = {.memory_size = RAM_SIZE};
	uint8_t *ram;
	int vm, r;

	do {
		vm = ioctl(sys_fd, KVM_CREATE_VM, 0UL);
	} while (vm < 0 && errno == EINTR);
	if (vm < 0) {
		return err_set(err, errno, "KVM cannot make a virtual machine: %s",
			       strerror(errno));
	}
	ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED) {
		r = err_set(err, errno, "no memory for a guest of 64 KiB");
		goto close_vm;
	}
	memcpy(ram + CODE, loop_code, sizeof(loop_code));
	slot.userspace_addr = (uintptr_t)ram;
	/* for Intel processors without unrestricted guest mode; others ignore both */
	kvm_ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	kvm_ioctl(vm, KVM_SET_TSS_ADDR, (void *)(uintptr_t)PLAT_TSS);
	r = kvm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot);
	if (r < 0) {
		r = err_set(err, -r, "KVM takes no memory for a guest: %s", strerror(-r));
	} else {
		r = probe_vcpu(sys_fd, vm, us, err);
	}
	munmap(ram, RAM_SIZE);
close_vm:
	close(vm);
	return r;
}
