/*
 * Direct boot of a bzImage. See linux_boot.h.
 *
 * Low memory:  0x1000 GDT and page tables   0x8000 boot_params   0x20000 command line
 * The kernel lies where it prefers or, if that is not RAM and it is relocatable, at the lowest
 * aligned place above 1 MiB; the initrd as high as its limit and RAM below 4 GiB allow, since
 * the boot page tables reach no further.
 *
 * Untrusted: both files. The header is read once into a host copy and judged there; files are
 * read straight into guest memory with the sizes found first, and a file that shrinks meanwhile
 * is an error, not a fault (nothing is mapped).
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch/x86/linux_boot.h"
#include "arch/x86/regs.h"
#include "base/util.h"
#include "base/wire.h"

#define LOW_TABLES  0x1000
#define LOW_PARAMS  0x8000
#define LOW_CMDLINE 0x20000
/* The command line may reach up to here. */
#define LOW_END 0x9F000

/* boot.rst, "Details of header fields": where they are in the file */
#define HDR_JUMP_LEN	 0x201 /* the header ends this many bytes after 0x202 */
#define HDR_MAGIC	 0x202
#define HDR_END		 0x264 /* up to init_size, the last field that we need */
#define HDR_BOOT	 0xAA55
#define HDR_HDRS	 0x53726448
#define HDR_VERSION	 0x020C /* the first with xloadflags */
#define SECTOR		 512
#define LOADER_UNDEFINED 0xFF
#define VIDEO_NORMAL	 0xFFFF
#define ENTRY_64	 0x200 /* startup_64, from where the kernel lies */

_Static_assert(offsetof(struct boot_params, hdr) == 0x1F1,
	       "the header is where the file has it");
_Static_assert(sizeof(struct boot_params) == 4096, "the zero page is a page");
_Static_assert(X86_MAX_E820 <= E820_MAX_ENTRIES_ZEROPAGE, "boot_params takes all entries");

int x86_linux_check(const void *head, size_t head_len, uint64_t file_size, const char *name,
		    struct x86_linux_kernel *k, struct err *err)
{
	struct setup_header h;
	unsigned end;

	if (head_len < HDR_END) {
		return err_set(err, EINVAL,
			       "-kernel %s: too short (%ju bytes) for a Linux kernel: give a "
			       "bzImage",
			       name, (uintmax_t)file_size);
	}
	memcpy(&h, (const char *)head + offsetof(struct boot_params, hdr),
	       MIN(sizeof(h), head_len - offsetof(struct boot_params, hdr)));
	end = HDR_MAGIC + ((const uint8_t *)head)[HDR_JUMP_LEN];
	if (h.boot_flag != HDR_BOOT || h.header != HDR_HDRS) {
		return err_set(err, EINVAL,
			       "-kernel %s: not a Linux kernel for x86: give a bzImage", name);
	}
	if (h.version < HDR_VERSION || end < HDR_END) {
		return err_set(err, EINVAL,
			       "-kernel %s: boot protocol %u.%02u is too old: use Linux 3.8 or "
			       "newer",
			       name, h.version >> 8, h.version & 0xFF);
	}
	if (!(h.xloadflags & XLF_KERNEL_64) || !(h.loadflags & LOADED_HIGH)) {
		return err_set(err, EINVAL,
			       "-kernel %s: has no 64-bit entry: use a 64-bit kernel", name);
	}
	*k = (struct x86_linux_kernel){
		.version = h.version,
		.setup_size = ((h.setup_sects ? h.setup_sects : 4) + 1) * SECTOR,
		.pref_address = h.pref_address,
		.alignment = h.kernel_alignment,
		.init_size = h.init_size,
		.cmdline_max = h.cmdline_size,
		.initrd_addr_max = h.initrd_addr_max,
		.relocatable = h.relocatable_kernel,
	};
	if (file_size <= k->setup_size ||
	    align_up(file_size - k->setup_size, 16) < (uint64_t)h.syssize * 16) {
		return err_set(
			err, EINVAL,
			"-kernel %s: truncated, %ju bytes of at least %ju: copy it again", name,
			(uintmax_t)file_size,
			(uintmax_t)(k->setup_size + MAX((uint64_t)h.syssize * 16, 1)));
	}
	k->payload_size = file_size - k->setup_size;
	if (k->payload_size > UINT32_MAX || !is_pow2(k->alignment) || k->alignment < 4096 ||
	    k->alignment > GiB || k->pref_address >= 4 * GiB || !k->init_size) {
		return err_set(
			err, EINVAL,
			"-kernel %s: its header says it lies at %#jx, aligned to %#x, and "
			"needs %u bytes, which cannot be: copy it again",
			name, (uintmax_t)k->pref_address, k->alignment, k->init_size);
	}
	return 0;
}

/* Is [addr, addr + size) inside one RAM entry, below 4 GiB? */
static bool is_ram(const struct x86_linux_config *cfg, uint64_t addr, uint64_t size)
{
	for (unsigned i = 0; i < cfg->e820_count; i++) {
		const struct x86_e820 *e = &cfg->e820[i];

		if (e->type == X86_E820_RAM && addr >= e->addr &&
		    range_within(addr - e->addr, size, e->size) &&
		    range_within(addr, size, 4 * GiB)) {
			return true;
		}
	}
	return false;
}

static int place_kernel(const struct x86_linux_config *cfg, const struct x86_linux_kernel *k,
			uint64_t need, uint64_t *addr, struct err *err)
{
	if (k->pref_address >= MiB && is_ram(cfg, k->pref_address, need)) {
		*addr = k->pref_address;
		return 0;
	}
	for (unsigned i = 0; k->relocatable && i < cfg->e820_count; i++) {
		*addr = align_up(MAX(cfg->e820[i].addr, MiB), k->alignment);
		if (is_ram(cfg, *addr, need)) {
			return 0;
		}
	}
	return err_set(err, ENOMEM,
		       "-kernel %s: needs %ju MiB of guest memory: use a larger -m",
		       cfg->kernel_name, (uintmax_t)((need + MiB - 1) / MiB));
}

/* As high as possible, beside the kernel, which lies in [kernel, kernel + need). */
static int place_initrd(const struct x86_linux_config *cfg, const struct x86_linux_kernel *k,
			uint64_t kernel, uint64_t need, uint64_t size, uint64_t *addr,
			struct err *err)
{
	uint64_t limit = MIN((uint64_t)k->initrd_addr_max + 1, 4 * GiB);

	for (unsigned i = cfg->e820_count; i-- > 0;) {
		const struct x86_e820 *e = &cfg->e820[i];
		uint64_t low = MAX(e->addr, MiB);
		uint64_t high;

		if (e->type != X86_E820_RAM || e->addr >= limit) {
			continue;
		}
		high = e->addr + MIN(e->size, limit - e->addr);
		/* above the kernel, else below it, if it is in this entry */
		for (int below = 0; below < 2; below++) {
			uint64_t from = low, to = high;

			if (kernel < high && kernel + need > low) {
				if (below) {
					to = MIN(high, kernel);
				} else {
					from = MAX(low, kernel + need);
				}
			}
			if (from < to && size <= to - from) {
				*addr = align_down(to - size, 4096);
				if (*addr >= from) {
					return 0;
				}
			}
		}
	}
	return err_set(err, ENOMEM,
		       "-initrd %s: its %ju MiB do not fit beside the kernel: use a larger -m",
		       cfg->initrd_name, (uintmax_t)((size + MiB - 1) / MiB));
}

/* By seeking and not by fstat(2), which libc turns into another call on every architecture and
 * version: this runs at every reset, behind the filter. #syscalls(main): lseek */
static int file_size(int fd, const char *option, const char *name, uint64_t *size,
		     struct err *err)
{
	off_t end = lseek(fd, 0, SEEK_END);

	if (end < 0 && errno != ESPIPE) {
		return err_set(err, errno, "%s %s: %s", option, name, strerror(errno));
	}
	if (end <= 0) {
		return err_set(err, EINVAL, "%s %s: %s: give a file with contents", option,
			       name, end == 0 ? "empty" : "not a regular file");
	}
	*size = (uint64_t)end;
	return 0;
}

/* Reads size bytes from off straight into guest memory. #syscalls(main): preadv */
static int file_to_guest(struct mem *m, int fd, uint64_t off, gpa_t gpa, uint64_t size,
			 const char *option, const char *name, struct err *err)
{
	while (size) {
		uint64_t chunk = MIN(size, GiB);
		struct iovec iov[2];
		int n = mem_span(m, gpa, chunk, true, iov, ARRAY_SIZE(iov));
		ssize_t got;

		if (n < 0) {
			return err_set(err, EFAULT,
				       "%s %s: no guest memory at %#jx: use a larger -m",
				       option, name, (uintmax_t)gpa);
		}
		got = preadv(fd, iov, n, off);
		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0) {
			return err_set(err, errno, "%s %s: %s", option, name, strerror(errno));
		}
		if (got == 0) {
			return err_set(err, EIO,
				       "%s %s: became shorter while it was read: "
				       "copy it again",
				       option, name);
		}
		mem_dirty(m, gpa, got);
		off += got;
		gpa += got;
		size -= got;
	}
	return 0;
}

/* Everything but the files: command line, boot_params, tables. */
static int write_params(struct mem *m, const struct x86_linux_config *cfg,
			struct boot_params *bp, struct err *err)
{
	const char *cmdline = cfg->cmdline ? cfg->cmdline : "";
	int r;

	bp->hdr.type_of_loader = LOADER_UNDEFINED;
	bp->hdr.vid_mode = VIDEO_NORMAL;
	bp->hdr.cmd_line_ptr = LOW_CMDLINE;
	bp->acpi_rsdp_addr = cfg->rsdp;
	bp->e820_entries = cfg->e820_count;
	for (unsigned i = 0; i < cfg->e820_count; i++) {
		bp->e820_table[i] = (struct boot_e820_entry){
			.addr = cfg->e820[i].addr,
			.size = cfg->e820[i].size,
			.type = cfg->e820[i].type,
		};
	}
	r = mem_write(m, LOW_CMDLINE, cmdline, strlen(cmdline) + 1);
	if (r == 0) {
		r = mem_write(m, LOW_PARAMS, bp, sizeof(*bp));
	}
	if (r < 0) {
		return err_set(err, -r, "no guest memory below 640 KiB: use a larger -m");
	}
	return x86_boot_tables_write(m, LOW_TABLES, err);
}

/* The header, from a host copy. #syscalls(main): preadv */
static int read_header(const struct x86_linux_config *cfg, struct x86_linux_kernel *k,
		       struct boot_params *bp, struct err *err)
{
	uint8_t head[X86_LINUX_HEADER_SIZE] = {0};
	struct iovec iov = {head, sizeof(head)};
	uint64_t size;
	ssize_t got;
	int r;

	r = file_size(cfg->kernel_fd, "-kernel", cfg->kernel_name, &size, err);
	if (r < 0) {
		return r;
	}
	got = preadv(cfg->kernel_fd, &iov, 1, 0); /* the call that a reset needs anyway */
	if (got < 0) {
		return err_set(err, errno, "-kernel %s: %s", cfg->kernel_name, strerror(errno));
	}
	r = x86_linux_check(head, got, size, cfg->kernel_name, k, err);
	if (r < 0) {
		return r;
	}
	memset(bp, 0, sizeof(*bp));
	memcpy(&bp->hdr, head + offsetof(struct boot_params, hdr),
	       MIN(sizeof(bp->hdr),
		   HDR_MAGIC + (size_t)head[HDR_JUMP_LEN] - offsetof(struct boot_params, hdr)));
	return 0;
}

int x86_linux_load(struct mem *m, const struct x86_linux_config *cfg,
		   struct x86_linux_entry *out, struct err *err)
{
	size_t cmdline_len = cfg->cmdline ? strlen(cfg->cmdline) : 0;
	uint64_t kernel = 0, need, initrd = 0, initrd_size = 0;
	struct x86_linux_kernel k;
	struct boot_params bp;
	int r;

	if (cfg->e820_count > X86_MAX_E820) {
		return err_set(err, EINVAL, "more than %d pieces of guest memory",
			       X86_MAX_E820);
	}
	r = read_header(cfg, &k, &bp, err);
	if (r < 0) {
		return r;
	}
	if (cmdline_len > k.cmdline_max || cmdline_len >= LOW_END - LOW_CMDLINE) {
		return err_set(err, EINVAL,
			       "-append: %zu characters, and %s takes %u: use a shorter one",
			       cmdline_len, cfg->kernel_name,
			       MIN(k.cmdline_max, LOW_END - LOW_CMDLINE - 1));
	}
	need = MAX(k.init_size, k.payload_size);
	r = place_kernel(cfg, &k, need, &kernel, err);
	if (r < 0) {
		return r;
	}
	if (cfg->initrd_name) {
		r = file_size(cfg->initrd_fd, "-initrd", cfg->initrd_name, &initrd_size, err);
		if (r == 0) {
			r = place_initrd(cfg, &k, kernel, need, initrd_size, &initrd, err);
		}
		if (r == 0) {
			r = file_to_guest(m, cfg->initrd_fd, 0, initrd, initrd_size, "-initrd",
					  cfg->initrd_name, err);
		}
		if (r < 0) {
			return r;
		}
	}
	r = file_to_guest(m, cfg->kernel_fd, k.setup_size, kernel, k.payload_size, "-kernel",
			  cfg->kernel_name, err);
	if (r < 0) {
		return r;
	}
	bp.hdr.code32_start = kernel;
	bp.hdr.ramdisk_image = initrd;
	bp.hdr.ramdisk_size = initrd_size;
	r = write_params(m, cfg, &bp, err);
	if (r < 0) {
		return r;
	}
	*out = (struct x86_linux_entry){
		.entry = kernel + ENTRY_64,
		.boot_params = LOW_PARAMS,
		.tables = LOW_TABLES,
	};
	return 0;
}
