/*
 * The declared state of GICv3 and ITS: the registers that Documentation/virt/kvm/devices/
 * arm-vgic-v3.rst and arm-vgic-its.rst name, in the order in which they have to be loaded.
 *
 * A set register (ISENABLER, ISACTIVER) only sets bits, so its clear register gets all ones
 * first; ISPENDR takes the whole latch. The levels of lines are a group of their own. The ITS keeps
 * devices and collections in guest memory when it is asked to, and the redistributors the pending
 * messages; both only between save and load.
 *
 * Reset is loading the state that KVM gave the fresh GIC. Threads: control loop, vCPUs parked.
 * Untrusted: the stream, and the tables in guest memory, which KVM checks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "kvm/arm64_int.h"

#define MAX_CPUS   512
#define MAX_SPIS   224
#define SPI_WORDS  (MAX_SPIS / 32 * 4 + MAX_SPIS / 4 + MAX_SPIS / 16 + MAX_SPIS * 2)
#define ITS_BASERS 8

enum { /* of the distributor, and, from 0x10000 on, of a redistributor */
	GICD_CTLR = 0x0000, GICD_IIDR = 0x0008,
	GIC_IGROUPR = 0x0080, GIC_ISENABLER = 0x0100, GIC_ICENABLER = 0x0180,
	GIC_ISPENDR = 0x0200, GIC_ISACTIVER = 0x0300, GIC_ICACTIVER = 0x0380,
	GIC_IPRIORITYR = 0x0400, GIC_ICFGR = 0x0c00, GICD_IROUTER = 0x6000,
	GICR_CTLR = 0x0000, GICR_WAKER = 0x0014, GICR_PROPBASER = 0x0070, GICR_PENDBASER = 0x0078,
	GICR_SGI = 0x10000,
	GITS_CTLR = 0x0000, GITS_IIDR = 0x0004, GITS_CBASER = 0x0080, GITS_CWRITER = 0x0088,
	GITS_CREADR = 0x0090, GITS_BASER = 0x0100,
};

/* Registers with `bits` for each interrupt; the INTID's number is the place. */
struct gic_array {
	uint16_t off, clear; /* clear: the register that clears, 0: none */
	uint8_t bits;
	bool only_spis;
};
static const struct gic_array arrays[] = {
	{GIC_IGROUPR, 0, 1, false},
	{GIC_IPRIORITYR, 0, 8, false},
	{GIC_ICFGR, 0, 2, false},
	{GIC_ISENABLER, GIC_ICENABLER, 1, false},
	{GIC_ISPENDR, 0, 1, false},
	{GIC_ISACTIVER, GIC_ICACTIVER, 1, false},
	{GICD_IROUTER, 0, 64, true},
};
/* 32 private interrupts: without the routers */
#define PRIVATE_WORDS (1 + 8 + 2 + 1 + 1 + 1)

#define ICC(op1, crn, crm, op2) (3 << 14 | (op1) << 11 | (crn) << 7 | (crm) << 3 | (op2))
static const uint16_t icc[] = {
	ICC(0, 12, 12, 5), /* SRE_EL1 */
	ICC(0, 12, 12, 4), /* CTLR_EL1 */
	ICC(0, 4, 6, 0),   /* PMR_EL1 */
	ICC(0, 12, 8, 3),  /* BPR0_EL1 */
	ICC(0, 12, 12, 3), /* BPR1_EL1 */
	ICC(0, 12, 8, 4), ICC(0, 12, 9, 0), /* AP0R0_EL1, AP1R0_EL1 */
	ICC(0, 12, 8, 5), ICC(0, 12, 9, 1), /* these with 6 bits of priority and more */
	ICC(0, 12, 8, 6), ICC(0, 12, 9, 2), ICC(0, 12, 8, 7), ICC(0, 12, 9, 3), /* with 7 */
	ICC(0, 12, 12, 6), /* IGRPEN0_EL1 */
	ICC(0, 12, 12, 7), /* IGRPEN1_EL1 */
};
enum { ICC_CTLR = 1, ICC_AP1 = 7, ICC_AP2 = 9, ICC_AP_END = 13, ICC_REGS = 15 };
_Static_assert(ARRAY_SIZE(icc) == ICC_REGS, "one name each");

struct gic_word {
	uint32_t v;
};
struct gic_long {
	uint64_t v;
};
struct gic_cpu {
	uint32_t ctlr, waker, lines;
	uint64_t propbaser, pendbaser;
	struct gic_word irqs[PRIVATE_WORDS];
	struct gic_long icc[ICC_REGS];
};
struct gic_state {
	uint32_t ctlr, iidr, spis;
	uint32_t nirqs, nlines, ncpus;
	struct gic_word irqs[SPI_WORDS], lines[MAX_SPIS / 32];
	struct gic_cpu cpu[MAX_CPUS];
	uint64_t its_ctlr, its_iidr, its_cbaser, its_creadr, its_cwriter;
	struct gic_long its_baser[ITS_BASERS];
};

static const struct state_desc word_desc = {
	.name = "gic-word",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct gic_word),
	.fields = (const struct state_field[]){STATE_F_U32(struct gic_word, v), STATE_F_END},
};
static const struct state_desc long_desc = {
	.name = "gic-long",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct gic_long),
	.fields = (const struct state_field[]){STATE_F_U64(struct gic_long, v), STATE_F_END},
};
static const struct state_desc cpu_desc = {
	.name = "gic-cpu",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct gic_cpu),
	.fields =
		(const struct state_field[]){
			STATE_F_U32(struct gic_cpu, ctlr),
			STATE_F_U32(struct gic_cpu, waker),
			STATE_F_U32(struct gic_cpu, lines),
			STATE_F_U64(struct gic_cpu, propbaser),
			STATE_F_U64(struct gic_cpu, pendbaser),
			STATE_F_ARRAY(struct gic_cpu, irqs, &word_desc),
			STATE_F_ARRAY(struct gic_cpu, icc, &long_desc),
			STATE_F_END,
		},
};
static const struct state_desc gic_desc = {
	.name = "arm64-gic",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct gic_state),
	.fields =
		(const struct state_field[]){
			STATE_F_U32(struct gic_state, ctlr),
			STATE_F_U32(struct gic_state, iidr),
			STATE_F_U32(struct gic_state, spis),
			STATE_F_VARRAY(struct gic_state, irqs, &word_desc, nirqs),
			STATE_F_VARRAY(struct gic_state, lines, &word_desc, nlines),
			STATE_F_VARRAY(struct gic_state, cpu, &cpu_desc, ncpus),
			STATE_F_U64(struct gic_state, its_ctlr),
			STATE_F_U64(struct gic_state, its_iidr),
			STATE_F_U64(struct gic_state, its_cbaser),
			STATE_F_U64(struct gic_state, its_creadr),
			STATE_F_U64(struct gic_state, its_cwriter),
			STATE_F_ARRAY(struct gic_state, its_baser, &long_desc),
			STATE_F_END,
		},
};

/* Where a walk over the registers goes: from KVM into the state or back. */
struct walk {
	struct arm64_gic *g;
	bool load;
	int ret; /* the first error */
};

static void reg(struct walk *w, int fd, uint32_t group, uint64_t attr, void *value)
{
	if (w->ret == 0) {
		int r = w->load ? arm64_attr_set(fd, group, attr, value)
				: arm64_attr_get(fd, group, attr, value);

		w->ret = MIN(r, 0);
	}
}

static void clear(struct walk *w, uint32_t group, uint64_t attr)
{
	uint32_t ones = UINT32_MAX;

	if (w->load) {
		reg(w, w->g->fd, group, attr, &ones);
	}
}

/* The arrays of the INTIDs [first, first + n), at base (attribute bits above included). */
static uint32_t walk_irqs(struct walk *w, uint32_t group, uint64_t base, unsigned first,
			  unsigned n, struct gic_word *words)
{
	uint32_t at = 0;

	for (size_t a = 0; a < ARRAY_SIZE(arrays); a++) {
		unsigned from = first * arrays[a].bits / 8,
			 to = (first + n) * arrays[a].bits / 8;

		if (arrays[a].only_spis && first < 32) {
			continue;
		}
		for (unsigned off = from; off < to; off += 4) {
			if (arrays[a].clear) {
				clear(w, group, base + arrays[a].clear + off);
			}
			reg(w, w->g->fd, group, base + arrays[a].off + off, &words[at++].v);
		}
	}
	return at;
}

static void walk_lines(struct walk *w, uint64_t mpidr, unsigned intid, uint32_t *levels)
{
	uint64_t attr = mpidr |
			(uint64_t)VGIC_LEVEL_INFO_LINE_LEVEL
				<< KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT |
			intid;

	reg(w, w->g->fd, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, attr, levels);
}

static void walk_long(struct walk *w, uint64_t attr, uint64_t *value)
{
	uint32_t half[2] = {(uint32_t)*value, (uint32_t)(*value >> 32)};

	reg(w, w->g->fd, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, attr, &half[0]);
	reg(w, w->g->fd, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, attr + 4, &half[1]);
	*value = half[0] | (uint64_t)half[1] << 32;
}

static bool has_icc(const struct gic_cpu *c, unsigned i)
{
	unsigned bits = (unsigned)(c->icc[ICC_CTLR].v >> 8 & 7) + 1; /* PRIbits */

	return i < ICC_AP1 || i >= ICC_AP_END || bits >= (i < ICC_AP2 ? 6 : 7);
}

static void walk_redist(struct walk *w, uint64_t mpidr, struct gic_cpu *c)
{
	const uint32_t group = KVM_DEV_ARM_VGIC_GRP_REDIST_REGS;
	uint32_t off = 0;

	if (w->load) { /* LPIs are off while their tables move */
		reg(w, w->g->fd, group, mpidr | GICR_CTLR, &off);
	}
	reg(w, w->g->fd, group, mpidr | GICR_WAKER, &c->waker);
	walk_long(w, mpidr | GICR_PROPBASER, &c->propbaser);
	walk_long(w, mpidr | GICR_PENDBASER, &c->pendbaser);
	reg(w, w->g->fd, group, mpidr | GICR_CTLR, &c->ctlr);
	walk_irqs(w, group, mpidr | GICR_SGI, 0, 32, c->irqs);
	walk_lines(w, mpidr, 0, &c->lines);
}

static void walk_icc(struct walk *w, uint64_t mpidr, struct gic_cpu *c)
{
	for (unsigned i = 0; i < ICC_REGS; i++) {
		if (has_icc(c, i)) {
			reg(w, w->g->fd, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, mpidr | icc[i],
			    &c->icc[i].v);
		}
	}
}

static uint64_t mpidr_attr(const struct kvm_vcpu *v)
{
	uint64_t m = kvm_vcpu_mpidr(v);

	return ((m & 0xffffff) | (m >> 32 & 0xff) << 24) << KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT;
}

static int walk_gic(struct kvm_vm *vm, struct gic_state *st, bool load)
{
	struct walk w = {.g = vm->gic, .load = load};

	reg(&w, w.g->fd, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD_IIDR, &st->iidr);
	reg(&w, w.g->fd, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD_CTLR, &st->ctlr);
	for (uint32_t i = 0; i < st->ncpus; i++) {
		walk_redist(&w, mpidr_attr(vm->vcpus[i]), &st->cpu[i]);
	}
	st->nirqs = walk_irqs(&w, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0, 32, st->spis, st->irqs);
	st->nlines = st->spis / 32;
	for (uint32_t i = 0; i < st->nlines; i++) {
		walk_lines(&w, 0, 32 + 32 * i, &st->lines[i].v);
	}
	for (uint32_t i = 0; i < st->ncpus; i++) {
		walk_icc(&w, mpidr_attr(vm->vcpus[i]), &st->cpu[i]);
	}
	return w.ret;
}

/* In the order that arm-vgic-its.rst asks for. */
static int walk_its(struct kvm_vm *vm, struct gic_state *st, bool load)
{
	struct walk w = {.g = vm->gic, .load = load};
	const uint32_t group = KVM_DEV_ARM_VGIC_GRP_ITS_REGS;
	int fd = w.g->its_fd, r;

	reg(&w, fd, group, GITS_IIDR, &st->its_iidr);
	reg(&w, fd, group, GITS_CBASER, &st->its_cbaser);
	reg(&w, fd, group, GITS_CREADR, &st->its_creadr);
	reg(&w, fd, group, GITS_CWRITER, &st->its_cwriter);
	for (unsigned i = 0; i < ITS_BASERS; i++) {
		reg(&w, fd, group, GITS_BASER + 8 * i, &st->its_baser[i].v);
	}
	if (load && w.ret == 0) {
		r = arm64_attr_set(fd, KVM_DEV_ARM_VGIC_GRP_CTRL,
				   KVM_DEV_ARM_ITS_RESTORE_TABLES, NULL);
		w.ret = MIN(r, 0);
	}
	reg(&w, fd, group, GITS_CTLR, &st->its_ctlr);
	return w.ret;
}

static struct gic_state *state_new(struct kvm_vm *vm, struct err *err)
{
	struct gic_state *st = calloc(1, sizeof(*st));

	if (!st) {
		err_set(err, ENOMEM, "no memory for the state of the GIC");
	} else {
		st->ncpus = vm->vcpu_count;
		st->spis = vm->gic->cfg.spis;
	}
	return st;
}

int arm64_gic_remember(struct kvm_vm *vm, struct err *err)
{
	int r;

	if (vm->vcpu_count > MAX_CPUS || vm->gic->cfg.spis > MAX_SPIS) {
		return err_set(err, EINVAL, "the GIC has at most %u vCPUs: use a smaller -smp",
			       MAX_CPUS);
	}
	vm->gic->initial = state_new(vm, err);
	if (!vm->gic->initial) {
		return -ENOMEM;
	}
	r = walk_gic(vm, vm->gic->initial, false);
	return r < 0 ? err_set(err, -r, "KVM does not give the state of the GIC: %s",
			       strerror(-r))
		     : 0;
}

int kvm_gic_reset(struct kvm_vm *vm, struct err *err)
{
	int r = arm64_attr_set(vm->gic->its_fd, KVM_DEV_ARM_VGIC_GRP_CTRL,
			       KVM_DEV_ARM_ITS_CTRL_RESET, NULL);

	r = r < 0 ? r : walk_gic(vm, vm->gic->initial, true);
	return r < 0 ? err_set(err, -r, "KVM does not reset the GIC: %s", strerror(-r)) : 0;
}

int kvm_gic_save(struct kvm_vm *vm, struct state_out *o, struct err *err)
{
	struct arm64_gic *g = vm->gic;
	struct gic_state *st = state_new(vm, err);
	int r;

	if (!st) {
		return -ENOMEM;
	}
	r = arm64_attr_set(g->its_fd, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_ITS_SAVE_TABLES,
			   NULL);
	r = r < 0 ? r
		  : arm64_attr_set(g->fd, KVM_DEV_ARM_VGIC_GRP_CTRL,
				   KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES, NULL);
	r = r < 0 ? r : walk_gic(vm, st, false);
	r = r < 0 ? r : walk_its(vm, st, false);
	r = r < 0 ? r : state_put(o, &gic_desc, "0", st);
	if (r < 0) {
		err_set(err, -r, "the state of the GIC cannot be saved: %s", strerror(-r));
	}
	free(st);
	return r;
}

int kvm_gic_load(struct kvm_vm *vm, struct state_in *in, struct err *err)
{
	struct gic_state *st = calloc(1, sizeof(*st));
	int r;

	if (!st) {
		return err_set(err, ENOMEM, "no memory for the state of the GIC");
	}
	r = state_get(in, &gic_desc, "0", st, err);
	if (r == -ENOENT) {
		err_set(err, ENOENT, "the saved state has no GIC");
	}
	if (r == 0 && (st->ncpus != vm->vcpu_count || st->spis != vm->gic->cfg.spis ||
		       st->nirqs > SPI_WORDS)) {
		r = err_set(
			err, EINVAL,
			"the saved GIC has %u vCPUs and %u interrupts, this one %u and %u: use "
			"the same -smp",
			st->ncpus, st->spis, vm->vcpu_count, vm->gic->cfg.spis);
	}
	if (r == 0) {
		r = walk_gic(vm, st, true);
		r = r < 0 ? r : walk_its(vm, st, true);
		if (r < 0) {
			err_set(err, -r, "KVM does not take the state of the GIC: %s",
				strerror(-r));
		}
	}
	free(st);
	return r;
}
