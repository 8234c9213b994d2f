/*
 * What the files of machine/ share. Control loop only, except where said.
 */
#ifndef MACHINE_MACHINE_INT_H
#define MACHINE_MACHINE_INT_H

#include "core/bus.h"
#include "core/device.h"
#include "core/doorbell.h"
#include "core/irq.h"
#include "core/power.h"
#include "core/vm.h"
#include "firmware/acpi/acpi.h"
#include "firmware/smbios.h"
#include "kvm/kvm.h"
#include "machine/bootorder.h"
#include "machine/machine.h"
#include "machine/memory.h"
#include "mem/mem.h"
#include "pci/pci.h"

struct blk_graph;
struct blk_node;
struct chr;
struct net_port;
struct virtio_dev;

/* A back end or object that devices name by id. */
struct named_loop {
	char *id;
	struct loop *loop;
};
struct named_blk {
	char *id;              /* -drive id= or node-name */
	struct blk_node *node;
	struct opts *implicit; /* -drive if=virtio: the device it asks for, or NULL */
	char *serial, *throttle_group;
	bool drive;            /* of -drive: one device uses it */
	bool used;
	/* -drive's, for a device that does not say its own */
	bool write_through;
	int werror, rerror;    /* enum virtio_blk_policy, or -1 */
	int index;             /* or -1 */
};
struct disk_errors;
struct named_rng {
	char *id;
	char *path; /* NULL: getrandom */
	bool used;
};

struct backends {
	struct chr **chr;
	size_t nchr;
	struct chr *serial; /* one of chr[], or NULL */
	struct blk_graph *graph;
	struct named_blk *blk;
	size_t nblk;
	struct disk_errors *disk_errors;
	struct drive_reopen *reopen; /* on its way, or NULL */
	struct net_port **net;
	size_t nnet;
	struct named_loop *io;
	size_t nio;
	struct named_rng *rng;
	size_t nrng;
	/* -drive if=pflash, by unit */
	struct flash_drive {
		char *file;
		bool read_only;
	} flash[2];
};

/* What a thread of the data path runs first; arg is the machine. */
void machine_io_thread_init(void *arg);

int backends_open(struct machine *m, struct err *err);
void backends_close(struct machine *m);
/* Removes the sockets that were made, when the machine could not be: before isolation. */
void backends_unlink(struct machine *m);
struct chr *backends_chr(struct backends *b, const char *id);
struct net_port *backends_net(struct backends *b, const char *id);
struct loop *backends_io(struct backends *b, const char *id);
struct named_rng *backends_rng(struct backends *b, const char *id);

/* For the files that open back ends: one more zeroed element, *list and *n are updated (NULL: no memory);
 * -ENOMEM with a sentence; back ends speak of their files, and whoever reads that is told which option
 * it was. */
void *backends_grow(void *list, size_t *n, size_t size);
int backends_no_memory(struct err *err, const char *what);
void backends_name_option(struct err *err, const char *option);

/* --- disks: drives.c --- */
int drives_init(struct machine *m, struct err *err);
int drives_blockdev(struct machine *m, struct opts *o, struct err *err);
int drives_drive(struct machine *m, struct opts *o, struct err *err);
int drives_throttle_group(struct machine *m, struct opts *o, const char *id, struct err *err);
void drives_close(struct backends *b);
void drives_reopen_cancel(struct backends *b); /* drive_reopen.c; harmless without one */
/* By -drive id= or node-name; NULL. */
struct named_blk *drives_find(struct backends *b, const char *id);
/* "report", "ignore", "stop", "enospc" (not for reads), as enum virtio_blk_policy, or -1. */
int drives_policy(const char *text, bool read);
/* disk_errors.c: what a virtio-blk device is given to tell of its errors: any loop. */
int disk_errors_new(struct machine *m, struct disk_errors **out);
void disk_errors_free(struct disk_errors *e);
struct virtio_blk_error;
void disk_errors_add(void *opaque, const struct virtio_blk_error *e);

/* Creates every -device (ports before what sits behind them) and the implicit ones. */
int devices_create(struct machine *m, struct err *err);
/* The names of the classes, for messages: NULL past the end. */
const char *device_class_name(unsigned i);

enum { /* what is asked for and not done yet */
	REQ_STOP = 1, REQ_RESET = 2, REQ_SHUTDOWN = 4, REQ_PANIC = 8, REQ_IO_ERROR = 16,
	REQ_QUIT = 32,
};
enum machine_phase { PHASE_IDLE, PHASE_CPUS, PHASE_DEVICES };

struct machine_waiter {
	machine_done_fn *fn;
	void *opaque;
};

struct board; /* the architecture's: virt_x86.c, virt_arm64.c */
/* What the boards of all architectures have. */
struct board_parts {
	struct ged *ged;
	struct pci_host *host;
	struct fw_cfg *fw;
	struct acpi_loader *acpi;
	struct acpi_cpu *cpus;
	struct smbios_facts smbios;
	int kernel_fd, initrd_fd; /* -1: not there */
};

struct machine {
	struct vm vm;
	struct device_list devices;
	struct power power;
	const struct vm_config *cfg;
	struct machine_env env;
	struct kvm_vm *kvm;
	struct board *board;
	struct board_parts parts;
	struct pci_bus *root;
	struct backends be;
	struct memory memory;
	struct named_serial { /* controllers that virtconsole and virtserialport name */
		char id[64];
		struct virtio_dev *vd;
	} *serials;
	unsigned nserials, anonymous;
	struct bootorder bootorder;

	enum run_state state;
	enum machine_phase phase;
	bool started;              /* threads run */
	unsigned req;              /* REQ_… */
	bool req_guest;            /* the reset or shutdown is the guest's */
	const char *req_reason;
	struct machine_waiter waiter[64];
	unsigned nwaiters;
	struct list listeners;
	machine_done_fn *on_quit;
	void *on_quit_opaque;
	bool quitting;

	_Atomic unsigned power_bits; /* 1 << enum power_request, any thread */
	struct loop_work power_work;
};

/* --- the board: board.c, --- */
/* Memory, interrupt controller, firmware, platform devices, PCI host; vCPUs are made but have no
 * thread yet. */
int board_new(struct machine *m, struct err *err);
void board_free(struct machine *m);
/* After devices_create(): places firmware or kernel, assigns BARs, builds tables. */
int board_ready(struct machine *m, struct err *err);
/* Boot source given? Without one only -S and -machine none make sense. */
bool board_has_boot_source(const struct machine *m);
/* A kernel without firmware. */
bool board_boots_directly(const struct machine *m);

/* for the file of the architecture: KVM, with what is the same everywhere filled in; */
int board_add_kvm(struct machine *m, struct kvm_vm_config *c, struct err *err);
/* -bios or the flash drives; volatile_size: of a second unit that firmware without a file for its
 * variables needs, or 0; */
int board_add_firmware(struct machine *m, uint32_t volatile_size, struct err *err);
/* what parts.fw tells firmware; ram_base: where the RAM begins; facts gets the machine; */
int board_add_tables(struct machine *m, uint64_t ram_base, acpi_facts_fn *facts,
		     struct err *err);
/* and the vCPUs in board_save() and board_load(). */
int board_save_cpus(struct machine *m, struct state_out *o, struct err *err);
int board_load_cpus(struct machine *m, struct state_in *in, struct err *err);

/* --- and one file per architecture: virt_x86.c, virt_arm64.c --- */
/* board_new() with m->vm.mem and m->vm.bus there, board_free() of what is in m->board. */
int board_init(struct machine *m, struct err *err);
void board_fini(struct machine *m);
/* parts.fw and what it tells firmware. */
int board_describe(struct machine *m, struct err *err);
/* Machine reset, everything paused: memory that boot needs, and the vCPUs' registers. */
int board_reset(struct machine *m, struct err *err);
void board_powerdown(struct machine *m);
int board_save(struct machine *m, struct state_out *o, struct err *err);
int board_load(struct machine *m, struct state_in *in, struct err *err);

#endif
