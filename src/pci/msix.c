/*
 * MSI-X: the capability, the table and the pending bits in a BAR, on top of the vectors of
 * vec.h.
 *
 * A vector is live when MSI-X is enabled, the function mask is 0, the entry's mask bit is 0 and
 * the function may master the bus; while it may not, triggers wait as pending.
 *
 * Threads: table reads run on the vCPU's thread (entries are atomic dwords), table writes on
 * the control loop; reads of the pending bits too, because they look into the eventfds.
 */
#include "pci/msix.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "pci/pci_int.h"
#include "pci/trace.h"
#include "pci/vec.h"
#include "spec/pci.h"

#define NVEC_MAX 256

enum { ADDR_LOW, ADDR_HIGH, DATA, CONTROL };

struct msix_vec {
	_Atomic uint32_t entry[4]; /* as the guest sees it */
	struct pci_vec vec;
};
struct msix {
	struct pci_func *f;
	unsigned cap, nvec;
	bool on, masked; /* for all vectors, as last put into effect */
	struct msix_vec v[];
};

static uint32_t entry_get(const struct msix_vec *v, unsigned i)
{
	return atomic_load_explicit(&v->entry[i], memory_order_relaxed);
}

static void entry_set(struct msix_vec *v, unsigned i, uint32_t value)
{
	/* Reserved bits read as zero. */
	if (i == ADDR_LOW) {
		value &= ~UINT32_C(3);
	} else if (i == CONTROL) {
		value &= PCI_MSIX_ENTRY_MASKED;
	}
	atomic_store_explicit(&v->entry[i], value, memory_order_relaxed);
}

static void vec_update(struct msix *m, struct msix_vec *v)
{
	enum pci_vec_mode mode = PCI_VEC_LIVE;

	if (!m->on) {
		mode = PCI_VEC_OFF;
	} else if (m->masked || entry_get(v, CONTROL) & PCI_MSIX_ENTRY_MASKED) {
		mode = PCI_VEC_MASKED;
	}
	v->vec.source = pci_requester_id(m->f);
	pci_vec_set(&v->vec, mode,
		    entry_get(v, ADDR_LOW) | (uint64_t)entry_get(v, ADDR_HIGH) << 32,
		    entry_get(v, DATA));
}

static uint64_t table_read(void *opaque, uint64_t off, unsigned size)
{
	const struct msix *m = opaque;

	if (off % 4) {
		return UINT64_MAX;
	}
	return entry_get(&m->v[off / PCI_MSIX_ENTRY_SIZE], off / 4 % 4);
}

static void table_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct msix *m = opaque;
	struct msix_vec *v = &m->v[off / PCI_MSIX_ENTRY_SIZE];

	if (off % 4 == 0) {
		entry_set(v, off / 4 % 4, (uint32_t)value);
		vec_update(m, v);
	}
}

static const struct bus_ops table_ops = {
	.read = table_read,
	.write = table_write,
	.min_size = 4,
	.max_size = 4,
};

static uint64_t pba_read(void *opaque, uint64_t off, unsigned size)
{
	struct msix *m = opaque;
	uint32_t bits = 0;

	if (off % 4) {
		return UINT64_MAX;
	}
	for (unsigned i = 0; i < 32 && off * 8 + i < m->nvec; i++) {
		bits |= (uint32_t)pci_vec_pending(&m->v[off * 8 + i].vec) << i;
	}
	return bits;
}

static const struct bus_ops pba_ops = {
	.read = pba_read,
	.min_size = 4,
	.max_size = 4,
};

int msix_init(struct pci_func *f, unsigned nvec, unsigned bar, uint64_t table_off,
	      uint64_t pba_off, struct err *err)
{
	struct pci_bar *b = &f->bar[bar];
	struct msix *m;
	unsigned cap;

	assert(nvec >= 1 && nvec <= NVEC_MAX && !f->msix);
	assert(table_off % 8 == 0 && pba_off % 8 == 0);
	m = calloc(1, sizeof(*m) + nvec * sizeof(m->v[0]));
	if (!m) {
		return err_set(err, ENOMEM, "%s: out of memory", f->name);
	}
	cap = pci_cap_add(f, PCI_CAP_MSIX, PCI_MSIX_SIZE);
	pci_set16(f, cap + PCI_MSIX_CONTROL, (uint16_t)(nvec - 1));
	pci_wmask_set16(f, cap + PCI_MSIX_CONTROL, PCI_MSIX_ENABLE | PCI_MSIX_FUNCTION_MASK);
	pci_set32(f, cap + PCI_MSIX_TABLE, (uint32_t)table_off | bar);
	pci_set32(f, cap + PCI_MSIX_PBA, (uint32_t)pba_off | bar);
	pci_bar_region(f, bar, table_off, nvec * PCI_MSIX_ENTRY_SIZE, "msix-table", &table_ops,
		       m, f->vm->loop);
	pci_bar_region(f, bar, pba_off, align_up(nvec, 64) / 8, "msix-pba", &pba_ops, m,
		       f->vm->loop);
	b->region[b->nregions - 1].owner_reads = true;
	m->f = f;
	m->cap = cap;
	m->nvec = nvec;
	for (unsigned i = 0; i < nvec; i++) {
		entry_set(&m->v[i], CONTROL, PCI_MSIX_ENTRY_MASKED);
		pci_vec_init(&m->v[i].vec, f->vm, f->name);
	}
	f->msix = m;
	return 0;
}

void msix_fini(struct pci_func *f)
{
	if (!f->msix) {
		return;
	}
	for (unsigned i = 0; i < f->msix->nvec; i++) {
		pci_vec_fini(&f->msix->v[i].vec);
	}
	free(f->msix);
	f->msix = NULL;
}

unsigned msix_nvec(const struct pci_func *f)
{
	return f->msix ? f->msix->nvec : 0;
}

bool msix_enabled(const struct pci_func *f)
{
	return f->msix && pci_get16(f, f->msix->cap + PCI_MSIX_CONTROL) & PCI_MSIX_ENABLE;
}

void msix_trigger(struct pci_func *f, unsigned vec)
{
	if (f->msix && vec < f->msix->nvec) {
		trace_pci_msix_trigger(f->name, vec);
		pci_vec_trigger(&f->msix->v[vec].vec);
	}
}

int msix_eventfd(struct pci_func *f, unsigned vec)
{
	return f->msix && vec < f->msix->nvec ? pci_vec_eventfd(&f->msix->v[vec].vec) : -EINVAL;
}

static void msix_update(struct msix *m)
{
	uint16_t control = pci_get16(m->f, m->cap + PCI_MSIX_CONTROL);

	m->on = control & PCI_MSIX_ENABLE;
	m->masked = control & PCI_MSIX_FUNCTION_MASK || !pci_bus_master(m->f);
	for (unsigned i = 0; i < m->nvec; i++) {
		vec_update(m, &m->v[i]);
	}
}

void msix_cfg_changed(struct pci_func *f)
{
	struct msix *m = f->msix;
	uint16_t control = pci_get16(f, m->cap + PCI_MSIX_CONTROL);
	bool on = control & PCI_MSIX_ENABLE;
	bool masked = control & PCI_MSIX_FUNCTION_MASK || !pci_bus_master(f);

	if (on != m->on || masked != m->masked) {
		msix_update(m);
	}
}

void msix_reset(struct pci_func *f)
{
	struct msix *m = f->msix;

	for (unsigned i = 0; i < m->nvec; i++) {
		struct msix_vec *v = &m->v[i];

		pci_vec_reset(&v->vec);
		for (unsigned dw = ADDR_LOW; dw <= CONTROL; dw++) {
			entry_set(v, dw, dw == CONTROL ? PCI_MSIX_ENTRY_MASKED : 0);
		}
	}
	msix_update(m);
}

void msix_save(struct pci_func *f, struct pci_func_state *st)
{
	struct msix *m = f->msix;

	st->nvec = m->nvec;
	for (unsigned i = 0; i < m->nvec; i++) {
		struct msix_vec *v = &m->v[i];

		st->vec[i] = (struct pci_vec_state){
			.addr = entry_get(v, ADDR_LOW) | (uint64_t)entry_get(v, ADDR_HIGH)
								 << 32,
			.data = entry_get(v, DATA),
			.ctrl = entry_get(v, CONTROL),
			.pending = pci_vec_pending(&v->vec),
		};
	}
}

/* Pending bits first, while everything is masked; then what is live fires them. */
void msix_restore(struct pci_func *f, const struct pci_func_state *st)
{
	struct msix *m = f->msix;

	for (unsigned i = 0; i < m->nvec; i++) {
		struct msix_vec *v = &m->v[i];
		const struct pci_vec_state *s = &st->vec[i];

		pci_vec_reset(&v->vec);
		entry_set(v, ADDR_LOW, (uint32_t)s->addr);
		entry_set(v, ADDR_HIGH, (uint32_t)(s->addr >> 32));
		entry_set(v, DATA, s->data);
		entry_set(v, CONTROL, s->ctrl);
		if (s->pending) {
			pci_vec_set(&v->vec, PCI_VEC_MASKED, 0, 0);
			pci_vec_trigger(&v->vec);
		}
	}
	msix_update(m);
}
