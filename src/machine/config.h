/*
 * What a machine is to be, as the command line said it: plain data, filled by control/ in any
 * order of the options, checked and used by machine/. Owned by the caller of machine_new(),
 * which takes nothing over; vm_config_fini() frees.
 */
#ifndef MACHINE_CONFIG_H
#define MACHINE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/opts.h"

enum machine_type {
	MACHINE_VIRT, /* virt, virt-1.0, q35, pc-q35-nemu-1.0 */
	MACHINE_NONE, /* no CPU, no memory: for probing over QMP */
};

/* One option that makes an object, in command-line order; opts.what is "-device" and the like. */
struct config_item {
	struct opts opts;
};
struct config_list {
	struct config_item *item;
	size_t count;
};

/* As much as -m takes. */
#define CONFIG_MAX_RAM (UINT64_C(1) << 46)

struct vm_config {
	enum machine_type type;
	char *machine_name;    /* as the user wrote it, or "virt" */
	char *name;            /* -name; NULL: none */
	bool uuid_set;
	uint8_t uuid[16];      /* in the order of the text form */
	struct config_list smbios; /* -smbios; type 1's uuid is the above, too */
	char boot_order[3];    /* -boot order=, of "cn"; empty: none */
	bool boot_menu, boot_wait_set;
	uint16_t boot_wait_ms;
	char *cpu;             /* -cpu: "MODEL[,feature=on|off…][,phys-bits=N]"; NULL: host */
	unsigned cpus;         /* -smp, default 1 */
	unsigned max_cpus;     /* places for CPUs: at least cpus */
	unsigned sockets, dies, cores,
		threads;       /* product == max_cpus, filled in by the parser */
	uint64_t ram;          /* bytes, default 128 MiB as in QEMU */
	bool ram_set;          /* -m was given */
	char *memory_backend;  /* -machine memory-backend=; NULL: none */
	char *mem_path;        /* -mem-path; NULL: none */
	bool mem_prealloc;
	bool mem_lock;         /* -overcommit mem-lock=on */
	bool hmat;             /* -machine hmat=on */
	char *kernel, *initrd, *append, *bios; /* paths; NULL: none */
	struct config_list drives, blockdevs, devices, netdevs, chardevs, objects, fw_cfgs,
		numas;
	char **serial;         /* the texts of -serial, at most 1 is not "none" */
	size_t nserial;
	char **qmp;            /* the texts of -qmp: unix:PATH,server=on,wait=off; tcp:…; stdio */
	size_t nqmp;
	bool nodefaults, nographic, no_reboot, no_shutdown, start_paused;
	bool sandbox_off;
	bool daemonize;
	char *pidfile;
	char **trace;          /* the texts of -trace */
	size_t ntrace;
	int64_t rtc_offset_s;  /* -rtc base=: seconds added to the host's UTC clock */
};

/* Keys of -smbios that may be given several times (opts_parse_lists()), NULL at the end. */
extern const char *const smbios_list_keys[];

/* The disks that the command line names, for the broker's policy: called for each, stops at the
 * first error. */
int vm_config_paths(const struct vm_config *c,
		    int (*fn)(void *arg, bool writable, const char *path, struct err *err),
		    void *arg, struct err *err);
/* Likewise, the unix sockets that are to be connected to again: reconnect= of -netdev stream. */
int vm_config_sockets(const struct vm_config *c,
		      int (*fn)(void *arg, const char *path, struct err *err), void *arg,
		      struct err *err);
/* Whether a machine of this configuration may have something opened, connected, started or
 * removed for it after it has given up its rights: by a QMP client, a back end, or at its end. */
bool vm_config_needs_broker(const struct vm_config *c);
/* The descriptors that options name (fd=N, fds=N:N:…). */
#define CONFIG_MAX_FDS 64
size_t vm_config_fds(const struct vm_config *c, int fds[CONFIG_MAX_FDS]);

void vm_config_init(struct vm_config *c);
void vm_config_fini(struct vm_config *c);

#endif
