/*
 * A saved Arm machine from anybody: vCPU registers, GIC and ITS, on the way from the stream to KVM.
 * The state of two vCPUs is saved, changed as the input says (bytes of it, behind which the checksum
 * is put right), and loaded.
 *
 * KVM is here, a table of registers: it answers what was set, refuses some values, and has the
 * memory of a caller's register only as long as the register's size. What must hold: nothing is set
 * that was not read when the state was saved (but the registers that clear, and LPIs off), and an
 * error has its sentence. The Arm parts of the kernel's interface that the sources need are below.
 *
 * #covers: src/kvm/arm64_state.c src/kvm/arm64_gic_state.c src/kvm/vcpu_state.c
 */
#include <assert.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

/* Of <asm/kvm.h> for arm64. */
struct kvm_vcpu_init {
	__u32 target, features[7];
};
struct arm64_events {
	struct {
		__u8 serror_pending, serror_has_esr, ext_dabt_pending, pad[5];
		__u64 serror_esr;
	} exception;
	__u32 reserved[12];
};
#define kvm_vcpu_events			       arm64_events
#define KVM_REG_ARM64_SVE_VLS		       (KVM_REG_ARM64 | 0x15 << 16 | KVM_REG_SIZE_U512 | 0xffff)
#define KVM_DEV_ARM_VGIC_GRP_DIST_REGS	       1
#define KVM_DEV_ARM_VGIC_GRP_CTRL	       4
#define KVM_DEV_ARM_VGIC_GRP_REDIST_REGS       5
#define KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS       6
#define KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO	       7
#define KVM_DEV_ARM_VGIC_GRP_ITS_REGS	       8
#define KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT 10
#define KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT	       32
#define VGIC_LEVEL_INFO_LINE_LEVEL	       0
#define KVM_DEV_ARM_ITS_SAVE_TABLES	       1
#define KVM_DEV_ARM_ITS_RESTORE_TABLES	       2
#define KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES   3
#define KVM_DEV_ARM_ITS_CTRL_RESET	       4

#include "kvm/arm64_gic_state.c"
#undef MAX_CPUS
#include "kvm/arm64_state.c"
#include "state/state_int.h"

#define CPUS	  2
#define SPIS	  64
#define MAX_ATTRS 2048

static const uint64_t reg_ids[] = {
	KVM_REG_ARM64 | KVM_REG_SIZE_U64 | 0x100,   KVM_REG_ARM64 | KVM_REG_SIZE_U128 | 0x110,
	KVM_REG_ARM64 | KVM_REG_SIZE_U32 | 0x120,   KVM_REG_ARM64_SVE_VLS,
	KVM_REG_ARM64 | KVM_REG_SIZE_U2048 | 0x130,
};

/* What the fake KVM has; a pair of descriptors tells GIC and ITS apart. */
enum { GIC_FD = 100, ITS_FD };
static struct {
	struct attr {
		int fd;
		uint32_t group;
		uint64_t attr;
	} attrs[MAX_ATTRS];
	unsigned nattrs;
	bool saving;
} fake;

static bool was_read(const struct attr *a)
{
	for (unsigned i = 0; i < fake.nattrs; i++) {
		if (!memcmp(&fake.attrs[i], a, sizeof(*a))) {
			return true;
		}
	}
	return false;
}

static unsigned attr_size(int fd, uint32_t group)
{
	return fd == ITS_FD || group == KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS ? 8 : 4;
}

int arm64_attr_get(int fd, uint32_t group, uint64_t attr, void *value)
{
	struct attr a;

	memset(&a, 0, sizeof(a));
	a.fd = fd;
	a.group = group;
	a.attr = attr;
	if (fake.saving && !was_read(&a)) {
		assert(fake.nattrs < MAX_ATTRS);
		fake.attrs[fake.nattrs++] = a;
	}
	memset(value, (int)(attr * 7 + group), attr_size(fd, group));
	return 0;
}

int arm64_attr_set(int fd, uint32_t group, uint64_t attr, const void *value)
{
	struct attr a;
	uint64_t v = 0;
	unsigned reg = (uint32_t)attr & 0xffff;

	memset(&a, 0, sizeof(a));
	a.fd = fd;
	a.group = group;
	a.attr = attr;
	if (group == KVM_DEV_ARM_VGIC_GRP_CTRL) {
		assert(!value && attr >= KVM_DEV_ARM_ITS_SAVE_TABLES &&
		       attr <= KVM_DEV_ARM_ITS_CTRL_RESET);
		return 0;
	}
	assert(!fake.saving);
	assert(was_read(&a) || (fd == GIC_FD && (reg & ~0x7fu) == GIC_ICENABLER) ||
	       (fd == GIC_FD && (reg & ~0x7fu) == GIC_ICACTIVER));
	memcpy(&v, value, attr_size(fd, group));
	return v == 0xdead ? -EINVAL : 0;
}

static struct arm64_reg *reg_at(const struct kvm_vcpu *v, uint64_t id)
{
	static struct arm64_reg regs[CPUS][ARRAY_SIZE(reg_ids)];

	for (size_t i = 0; i < ARRAY_SIZE(reg_ids); i++) {
		if (reg_ids[i] == id) {
			return &regs[v->index][i];
		}
	}
	abort(); /* one that KVM has not */
}

int arm64_reg_get(const struct kvm_vcpu *v, uint64_t id, void *value)
{
	memcpy(value, reg_at(v, id)->value, reg_size(id));
	return 0;
}

int arm64_reg_set(const struct kvm_vcpu *v, uint64_t id, const void *value)
{
	assert(id != KVM_REG_ARM64_SVE_VLS);
	memcpy(reg_at(v, id)->value, value, reg_size(id));
	return ((const uint8_t *)value)[0] == 0xee ? -EINVAL : 0;
}

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
	if (request == KVM_GET_MP_STATE) {
		((struct kvm_mp_state *)arg)->mp_state = 3;
	} else if (request == KVM_SET_MP_STATE) {
		return ((struct kvm_mp_state *)arg)->mp_state > 10 ? -EINVAL : 0;
	}
	return 0; /* events */
}

int kvm_cap(const struct kvm_vm *vm, unsigned cap)
{
	return 1;
}

uint64_t kvm_vcpu_mpidr(const struct kvm_vcpu *v)
{
	return v->index;
}

struct machine {
	struct kvm_vm vm;
	struct kvm_vcpu cpu[CPUS], *cpus[CPUS];
	struct arm64_vcpu arm[CPUS];
	struct arm64_gic gic;
};

static struct machine *machine_new(struct kvm_reg_list *list)
{
	struct machine *m = calloc(1, sizeof(*m));

	assert(m != NULL);
	for (unsigned i = 0; i < CPUS; i++) {
		m->arm[i].regs = list;
		m->cpu[i].vm = &m->vm;
		m->cpu[i].index = i;
		m->cpu[i].name[0] = (char)('0' + i);
		m->cpu[i].arm64 = &m->arm[i];
		m->cpus[i] = &m->cpu[i];
	}
	m->gic.fd = GIC_FD;
	m->gic.its_fd = ITS_FD;
	m->gic.cfg.spis = SPIS;
	m->vm.vcpus = m->cpus;
	m->vm.vcpu_count = CPUS;
	m->vm.gic = &m->gic;
	return m;
}

/* Groups of four bytes of the input: place (24 bits) and value of a byte. */
static void change(uint8_t *data, size_t len, const uint8_t *in, size_t n)
{
	for (; n >= 4; in += 4, n -= 4) {
		data[(in[0] | (size_t)in[1] << 8 | (size_t)in[2] << 16) % len] = in[3];
	}
}

/* The state of m; what it was read from is remembered. */
static size_t save(struct machine *m, uint8_t **out)
{
	struct state_out *o;
	const void *data;
	size_t len;

	fake.saving = true;
	assert(state_out_new(&o) == 0);
	assert(kvm_gic_save(&m->vm, o, NULL) == 0);
	for (unsigned i = 0; i < CPUS; i++) {
		assert(kvm_vcpu_save(&m->cpu[i], o, NULL) == 0);
	}
	fake.saving = false;
	assert(state_out_finish(o, &data, &len) == 0);
	*out = malloc(len);
	assert(*out != NULL);
	memcpy(*out, data, len);
	state_out_free(o);
	return len;
}

/* Unchanged state has to be taken. */
static void check(int ret, const struct err *err, bool changed)
{
	assert(ret == 0 || (ret < 0 && err->msg[0]));
	assert(changed || ret == 0);
}

static void load(struct machine *m, const uint8_t *data, size_t len, bool changed)
{
	struct err err = {0};
	struct state_in *in;
	int ret = state_in_open(&in, data, len, &err);

	check(ret, &err, changed);
	if (ret) {
		return;
	}
	for (unsigned i = 0; i < CPUS; i++) {
		ret = kvm_vcpu_load(&m->cpu[i], in, &err);
		check(ret, &err, changed);
	}
	ret = kvm_gic_load(&m->vm, in, &err);
	check(ret, &err, changed);
	state_in_free(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct machine *m;
	static uint8_t *saved;
	static size_t len;
	struct crc32c crc;
	uint8_t *bytes;
	uint32_t v;

	if (!m) {
		struct kvm_reg_list *list = malloc(sizeof(*list) + sizeof(reg_ids));

		assert(list != NULL);
		list->n = ARRAY_SIZE(reg_ids);
		memcpy(list->reg, reg_ids, sizeof(reg_ids));
		m = machine_new(list);
		len = save(m, &saved);
	}
	bytes = malloc(len);
	assert(bytes != NULL);
	memcpy(bytes, saved, len);
	change(bytes, len - STATE_CRC_SIZE, data, size);
	crc32c_init(&crc);
	v = crc32c_update(&crc, 0, bytes, len - STATE_CRC_SIZE);
	memcpy(bytes + len - STATE_CRC_SIZE, &v, sizeof(v));
	load(m, bytes, len, size >= 4);
	free(bytes);
	return 0;
}
