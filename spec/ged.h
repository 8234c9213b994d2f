/*
 * The selector of the generic event device: one bit for each kind of event, the same on every
 * machine. The ASL has the same values.
 */
#ifndef SPEC_GED_H
#define SPEC_GED_H

#include <stdint.h>

#define PLAT_GED_SIZE	 UINT64_C(4) /* one u32, which reading clears */
#define PLAT_GED_CPU	 UINT32_C(0x01)
#define PLAT_GED_MEMORY	 UINT32_C(0x02)
#define PLAT_GED_NVDIMM	 UINT32_C(0x04)
#define PLAT_GED_PCI	 UINT32_C(0x08)
#define PLAT_GED_POWER	 UINT32_C(0x10) /* the power button */
#define PLAT_GED_VMGENID UINT32_C(0x20)

#endif
