/*
 * What both kinds of direct boot do: find room for things. See boot_int.h.
 *
 * The initrd lies as high as its limit and RAM below 4 GiB allow, beside the kernel.
 * Untrusted: the files. Control loop.
 */
#include <errno.h>
#include <string.h>

#include "arch/x86/boot_int.h"
#include "base/util.h"

bool boot_is_ram(const struct x86_linux_config *cfg, uint64_t addr, uint64_t size)
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

/* As high as possible, beside the kernel, which lies in [kernel, kernel + need). */
static int place_initrd(const struct x86_linux_config *cfg, uint64_t addr_max, uint64_t kernel,
			uint64_t need, uint64_t size, uint64_t *addr, struct err *err)
{
	uint64_t limit = MIN(addr_max + 1, 4 * GiB);

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

void boot_zero_guest(struct mem *m, gpa_t gpa, uint64_t size)
{
	while (size) {
		uint64_t chunk = MIN(size, GiB);
		struct iovec iov[2];
		int n = mem_span(m, gpa, chunk, true, iov, ARRAY_SIZE(iov));

		for (int i = 0; i < n; i++) {
			memset(iov[i].iov_base, 0, iov[i].iov_len);
		}
		mem_dirty(m, gpa, chunk);
		gpa += chunk;
		size -= chunk;
	}
}

int boot_load_initrd(struct mem *m, const struct x86_linux_config *cfg, uint64_t addr_max,
		     uint64_t kernel, uint64_t need, uint64_t *addr, uint64_t *size,
		     struct err *err)
{
	int r;

	*addr = *size = 0;
	if (!cfg->initrd_name) {
		return 0;
	}
	r = boot_file_size(cfg->initrd_fd, "-initrd", cfg->initrd_name, size, err);
	if (r == 0) {
		r = place_initrd(cfg, addr_max, kernel, need, *size, addr, err);
	}
	if (r == 0) {
		r = boot_file_to_guest(m, cfg->initrd_fd, 0, *addr, *size, "-initrd",
				       cfg->initrd_name, err);
	}
	return r;
}

int boot_check_cmdline(const struct x86_linux_config *cfg, uint64_t max, struct err *err)
{
	size_t len = cfg->cmdline ? strlen(cfg->cmdline) : 0;

	max = MIN(max, LOW_END - LOW_CMDLINE - 1);
	if (len > max) {
		return err_set(err, EINVAL,
			       "-append: %zu characters, and %s takes %ju: use a shorter one",
			       len, cfg->kernel_name, (uintmax_t)max);
	}
	return 0;
}

int boot_write_cmdline(struct mem *m, const struct x86_linux_config *cfg, struct err *err)
{
	const char *cmdline = cfg->cmdline ? cfg->cmdline : "";
	int r = mem_write(m, LOW_CMDLINE, cmdline, strlen(cmdline) + 1);

	return r ? err_set(err, -r, "no guest memory below 640 KiB: use a larger -m") : 0;
}
