/*
 * How wide the guest's physical addresses are. See x86_phys_bits_choose() in cpuid.h.
 *
 * OVMF (2022.11) and Linux put 64-bit BARs at the top of what CPUID 80000008h says, and the time
 * OVMF takes to enumerate grows with the width, so narrow is better. OVMF trusts the value only
 * if it is at least 41, or 40 on AMD, or 39 on Intel; otherwise it assumes a small
 * window above RAM.
 */
#include <errno.h>

#include "arch/x86/cpuid_int.h"
#include "base/util.h"

#define PHYS_BITS_MIN 36
#define PHYS_BITS_MAX 52

unsigned x86_phys_bits_host(const struct kvm_cpuid2 *supported)
{
	const struct kvm_cpuid_entry2 *e = x86_cpuid_find(supported, 0x80000008, 0);
	unsigned bits = e ? e->eax & 0xFF : 0;

	return bits >= PHYS_BITS_MIN && bits <= PHYS_BITS_MAX ? bits : PHYS_BITS_MIN;
}

static bool fits(unsigned bits, const struct x86_phys_need *need)
{
	uint64_t window = UINT64_C(1) << (bits - 3); /* the top eighth */

	return need->ram_end <= (UINT64_C(1) << bits) - window && need->window <= window;
}

static bool ovmf_accepts(unsigned bits, enum x86_vendor vendor)
{
	return bits >= 41 || bits == (vendor == X86_AMD ? 40 : 39);
}

int x86_phys_bits_choose(const struct kvm_cpuid2 *supported, const struct x86_cpu_model *m,
			 const struct x86_phys_need *need, unsigned *bits, struct err *err)
{
	enum x86_vendor vendor = x86_cpuid_vendor(supported);
	unsigned host = x86_phys_bits_host(supported);

	if (m->phys_bits > host) {
		return err_set(err, EINVAL,
			       "-cpu: phys-bits=%u is more than the %u of this host: use fewer",
			       m->phys_bits, host);
	}
	if (m->phys_bits || m->host_phys_bits) {
		*bits = m->phys_bits ? m->phys_bits : host;
		if (!fits(*bits, need)) {
			return err_set(
				err, EINVAL,
				"-cpu: %u address bits do not hold memory up to %#jx and "
				"the window for devices above it: use more phys-bits or "
				"less memory",
				*bits, (uintmax_t)need->ram_end);
		}
		return 0;
	}
	for (*bits = PHYS_BITS_MIN; *bits <= host; (*bits)++) {
		if (ovmf_accepts(*bits, vendor) && fits(*bits, need)) {
			return 0;
		}
	}
	*bits = host; /* a narrow host: its own, and OVMF makes do */
	if (!fits(host, need)) {
		return err_set(
			err, EINVAL,
			"-m: this host's %u address bits do not hold memory up to %#jx and "
			"the window for devices above it: use less memory",
			host, (uintmax_t)need->ram_end);
	}
	return 0;
}
