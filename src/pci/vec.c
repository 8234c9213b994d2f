/*
 * Interrupt vectors: see vec.h for the states and the order of changes.
 *
 * When the irqchip has no GSI left (a guest may unmask more vectors than KVM has routes), the
 * control loop watches the eventfd instead and sends each message itself: slower, but nothing
 * is lost and kernel back ends need not know.
 *
 * Untrusted: address and data of the message are the guest's; they go to the irqchip only.
 */
#include "pci/vec.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "core/irq.h"
#include "core/vm.h"

enum {
	WORD_MASKED = 1,
	WORD_OFF = 2,
	WORD_PENDING = 4,
};

void pci_vec_init(struct pci_vec *v, struct vm *vm, const char *name)
{
	*v = (struct pci_vec){.fd = -1, .gsi = -1, .vm = vm, .name = name};
	atomic_init(&v->word, WORD_OFF | WORD_MASKED);
}

/* #syscalls: write */
static void vec_signal(struct pci_vec *v)
{
	uint64_t one = 1;

	/* Fails only at 2^64 - 2 unseen triggers, when one more changes nothing. */
	(void)!write(v->fd, &one, sizeof(one));
}

/*
 * Takes what was written to the eventfd. True if there was something.
 * #syscalls(main): read
 */
static bool vec_drain(struct pci_vec *v)
{
	uint64_t n;

	return v->fd >= 0 && read(v->fd, &n, sizeof(n)) == sizeof(n);
}

/* Acquire: who sees the vector live also sees its eventfd. */
void pci_vec_trigger(struct pci_vec *v)
{
	uint32_t word = atomic_load_explicit(&v->word, memory_order_acquire);

	while (word & WORD_MASKED) {
		if (word & (WORD_OFF | WORD_PENDING)) {
			return;
		}
		if (atomic_compare_exchange_weak_explicit(&v->word, &word, word | WORD_PENDING,
							  memory_order_acq_rel,
							  memory_order_acquire)) {
			return;
		}
	}
	vec_signal(v);
}

/* #syscalls(main): eventfd2 */
int pci_vec_eventfd(struct pci_vec *v)
{
	if (v->fd < 0) {
		int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

		if (fd < 0) {
			return -errno;
		}
		v->fd = fd;
	}
	return v->fd;
}

static void vec_relay(void *opaque, uint32_t events)
{
	struct pci_vec *v = opaque;

	if (vec_drain(v)) {
		v->vm->irq->ops->msi_send(v->vm->irq, v->addr, v->data, v->source);
	}
}

/* Binds the eventfd to a GSI with this message, or has it relayed. */
static int vec_bind(struct pci_vec *v, uint64_t addr, uint32_t data)
{
	struct irqchip *c = v->vm->irq;
	int rc;

	if (v->gsi < 0) {
		v->gsi = c->ops->gsi_alloc(c);
	}
	rc = v->gsi;
	if (v->gsi >= 0) {
		rc = c->ops->route_set(c, v->gsi, true, addr, data, v->source);
		if (rc == 0) {
			rc = c->ops->irqfd(c, v->gsi, v->fd, true);
		}
		if (rc == 0) {
			return 0;
		}
		c->ops->gsi_free(c, v->gsi);
		v->gsi = -1;
	}
	/* no route left, or a message that KVM does not take */
	log_guest(v->name, "an interrupt vector has no route (%s) and is relayed",
		  strerror(-rc));
	rc = loop_fd_add(v->vm->loop, &v->relay, v->fd, EPOLLIN, vec_relay, v);
	v->relayed = rc == 0;
	return rc;
}

static void vec_unbind(struct pci_vec *v)
{
	if (!v->bound) {
		return;
	}
	v->bound = false;
	if (v->relayed) {
		loop_fd_del(&v->relay);
		v->relayed = false;
	} else {
		v->vm->irq->ops->irqfd(v->vm->irq, v->gsi, v->fd, false);
	}
}

/* False if it could not be had; the vector stays masked then. */
static bool vec_go_live(struct pci_vec *v, uint64_t addr, uint32_t data)
{
	uint32_t before = atomic_load_explicit(&v->word, memory_order_relaxed);
	bool pending = false;
	bool changed = v->addr != addr || v->data != data || v->routed != v->source;
	struct irqchip *c = v->vm->irq;
	int rc;

	v->addr = addr;
	v->data = data;
	v->routed = v->source;
	if (v->bound) {
		rc = changed && !v->relayed ? c->ops->route_set(c, v->gsi, true, addr, data, v->source)
					    : 0;
		if (rc < 0) {
			log_guest(v->name, "an interrupt vector cannot be moved: %s",
				  strerror(-rc));
		}
		return rc == 0;
	}
	rc = pci_vec_eventfd(v);
	if (rc >= 0) {
		/* Written while unbound: by a kernel back end or an overtaken trigger. */
		pending = vec_drain(v) && !(before & WORD_OFF);
		rc = vec_bind(v, addr, data);
	}
	if (rc < 0) {
		log_guest(v->name, "an interrupt vector cannot be had: %s", strerror(-rc));
		if (pending) {
			vec_signal(v);
		}
		return false;
	}
	v->bound = true;
	before = atomic_exchange_explicit(&v->word, 0, memory_order_acq_rel);
	if (before & WORD_PENDING || pending) {
		vec_signal(v);
	}
	return true;
}

void pci_vec_set(struct pci_vec *v, enum pci_vec_mode mode, uint64_t addr, uint32_t data)
{
	if (mode == PCI_VEC_LIVE) {
		if (vec_go_live(v, addr, data)) {
			return;
		}
		mode = PCI_VEC_MASKED;
	}
	if (mode == PCI_VEC_OFF) {
		atomic_store_explicit(&v->word, WORD_MASKED | WORD_OFF, memory_order_release);
		vec_unbind(v);
	} else {
		uint32_t was =
			atomic_fetch_or_explicit(&v->word, WORD_MASKED, memory_order_acq_rel);
		vec_unbind(v);
		if (was & WORD_OFF) {
			vec_drain(v); /* nobody was to hear of those */
			atomic_fetch_and_explicit(&v->word, ~(uint32_t)WORD_OFF,
						  memory_order_acq_rel);
		}
	}
}

bool pci_vec_pending(struct pci_vec *v)
{
	if (v->relayed) {
		vec_relay(v, 0); /* what is on its way is sent, not pending */
	} else if (!v->bound && vec_drain(v)) {
		pci_vec_trigger(v); /* masked: sets PENDING; off: forgets it */
	}
	return atomic_load_explicit(&v->word, memory_order_relaxed) & WORD_PENDING;
}

void pci_vec_reset(struct pci_vec *v)
{
	pci_vec_set(v, PCI_VEC_OFF, 0, 0);
	if (v->gsi >= 0) {
		v->vm->irq->ops->route_set(v->vm->irq, v->gsi, false, 0, 0, 0);
		v->vm->irq->ops->gsi_free(v->vm->irq, v->gsi);
		v->gsi = -1;
	}
}

/* #syscalls(main): close */
void pci_vec_fini(struct pci_vec *v)
{
	pci_vec_reset(v);
	if (v->fd >= 0) {
		close(v->fd);
		v->fd = -1;
	}
}
