/*
 * The firmware configuration device: selector keys and the DMA interface.
 * Specification: QEMU Firmware Configuration (fw_cfg) Device.
 */
#ifndef SPEC_FW_CFG_H
#define SPEC_FW_CFG_H

#include "base/wire.h"

#define FW_CFG_SIGNATURE    0x00 /* "QEMU" */
#define FW_CFG_ID	    0x01 /* le32 */
#define FW_CFG_UUID	    0x02
#define FW_CFG_RAM_SIZE	    0x03
#define FW_CFG_NOGRAPHIC    0x04
#define FW_CFG_NB_CPUS	    0x05 /* le16: CPUs that run at boot */
#define FW_CFG_KERNEL_SIZE  0x08
#define FW_CFG_INITRD_SIZE  0x0b
#define FW_CFG_NUMA	    0x0d
#define FW_CFG_BOOT_MENU    0x0e
#define FW_CFG_MAX_CPUS	    0x0f /* le16 */
#define FW_CFG_KERNEL_DATA  0x11
#define FW_CFG_INITRD_DATA  0x12
#define FW_CFG_CMDLINE_SIZE 0x14
#define FW_CFG_CMDLINE_DATA 0x15
#define FW_CFG_SETUP_SIZE   0x17
#define FW_CFG_SETUP_DATA   0x18
#define FW_CFG_FILE_DIR	    0x19
#define FW_CFG_FILE_FIRST   0x20

#define FW_CFG_VERSION	   0x01 /* in FW_CFG_ID: the traditional interface */
#define FW_CFG_VERSION_DMA 0x02

#define FW_CFG_MAX_FILE_PATH 56 /* with the NUL */

/* Port layout, relative to the base: u16 selector, u8 data, be64 DMA address in two halves. */
#define FW_CFG_SELECTOR_OFF  0
#define FW_CFG_DATA_OFF	     1
#define FW_CFG_DMA_HI_OFF    4
#define FW_CFG_DMA_LO_OFF    8 /* writing this half starts the transfer */
#define FW_CFG_DMA_SIGNATURE UINT64_C(0x51454d5520434647) /* "QEMU CFG" */

/* In memory: data (1, 2, 4 or 8 bytes), be16 selector, be64 DMA address. */
#define FW_CFG_MMIO_SELECTOR 0x08
#define FW_CFG_MMIO_DMA	     0x10
#define FW_CFG_MMIO_SIZE     0x18

#define FW_CFG_DMA_CTL_ERROR  0x01
#define FW_CFG_DMA_CTL_READ   0x02
#define FW_CFG_DMA_CTL_SKIP   0x04
#define FW_CFG_DMA_CTL_SELECT 0x08
#define FW_CFG_DMA_CTL_WRITE  0x10

struct fw_cfg_dma_access {
	be32 control;
	be32 length;
	be64 address;
};
struct fw_cfg_wire_file {
	be32 size;
	be16 select;
	be16 reserved;
	char name[FW_CFG_MAX_FILE_PATH];
};

#endif
