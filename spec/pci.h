/*
 * PCI Express Base Specification Revision 5.0 (section numbers below are its own), PCI Local Bus
 * Specification 3.0, PCI-to-PCI Bridge Architecture 1.2, PCI Firmware Specification 3.3 (ECAM).
 */
#ifndef SPEC_PCI_H
#define SPEC_PCI_H

/* Configuration mechanism #1 [PCI 3.0, 3.2.2.3.2] */
#define PCI_CONFIG_ADDRESS        0xcf8
#define PCI_CONFIG_DATA           0xcfc
#define PCI_CONFIG_ADDRESS_ENABLE 0x80000000u
#define PCI_CONFIG_ADDRESS_MASK   0x80fffffcu

/* Common header [7.5.1.1] */
#define PCI_VENDOR_ID       0x00
#define PCI_DEVICE_ID       0x02
#define PCI_COMMAND         0x04
#define PCI_STATUS          0x06
#define PCI_REVISION_ID     0x08
#define PCI_CLASS_CODE      0x09 /* three bytes: interface, sub-class, base class */
#define PCI_CACHE_LINE_SIZE 0x0c
#define PCI_HEADER_TYPE     0x0e
#define PCI_CAPABILITIES    0x34
#define PCI_INTERRUPT_LINE  0x3c
#define PCI_INTERRUPT_PIN   0x3d
#define PCI_HEADER_SIZE     0x40

#define PCI_COMMAND_IO           0x0001
#define PCI_COMMAND_MEMORY       0x0002
#define PCI_COMMAND_MASTER       0x0004
#define PCI_COMMAND_PARITY       0x0040
#define PCI_COMMAND_SERR         0x0100
#define PCI_COMMAND_INTX_DISABLE 0x0400

#define PCI_STATUS_CAPABILITIES 0x0010
#define PCI_STATUS_RW1C         0xf900 /* parity, SERR, three aborts, master parity */

#define PCI_HEADER_TYPE_0     0x00
#define PCI_HEADER_TYPE_1     0x01
#define PCI_HEADER_TYPE_MULTI 0x80

/* Type 0 [7.5.1.2] */
#define PCI_BAR0                0x10
#define PCI_SUBSYSTEM_VENDOR_ID 0x2c
#define PCI_SUBSYSTEM_ID        0x2e

#define PCI_BAR_IO_SPACE     0x1
#define PCI_BAR_MEM_64       0x4
#define PCI_BAR_PREFETCHABLE 0x8

/* Type 1 [7.5.1.3] */
#define PCI_PRIMARY_BUS           0x18
#define PCI_SECONDARY_BUS         0x19
#define PCI_SUBORDINATE_BUS       0x1a
#define PCI_SECONDARY_STATUS      0x1e
#define PCI_MEMORY_BASE           0x20
#define PCI_MEMORY_LIMIT          0x22
#define PCI_PREFETCH_BASE         0x24
#define PCI_PREFETCH_LIMIT        0x26
#define PCI_PREFETCH_BASE_UPPER   0x28
#define PCI_PREFETCH_LIMIT_UPPER  0x2c
#define PCI_BRIDGE_CONTROL        0x3e

#define PCI_WINDOW_ADDRESS     0xfff0u /* of base and limit registers: address bits 31:20 */
#define PCI_PREFETCH_64        0x0001
#define PCI_BRIDGE_PARITY      0x0001
#define PCI_BRIDGE_SERR        0x0002
#define PCI_BRIDGE_RESET       0x0040 /* Secondary Bus Reset */

/* Capability ids [7.5.2, 7.5.3, 7.7, 7.9] */
#define PCI_CAP_PM      0x01
#define PCI_CAP_MSI     0x05
#define PCI_CAP_VENDOR  0x09
#define PCI_CAP_SSVID   0x0d
#define PCI_CAP_EXPRESS 0x10
#define PCI_CAP_MSIX    0x11
#define PCI_CAP_NEXT    1 /* offset of the pointer in every capability */

/* Power management [7.5.2]; offsets from the capability */
#define PCI_PM_SIZE              8
#define PCI_PM_PMC               0x02
#define PCI_PM_PMCSR             0x04
#define PCI_PMC_VERSION_3        0x0003
#define PCI_PMCSR_STATE          0x0003
#define PCI_PMCSR_D0             0
#define PCI_PMCSR_D3HOT          3
#define PCI_PMCSR_NO_SOFT_RESET  0x0008

/* MSI [7.7.1], with 64-bit address and per-vector masking */
#define PCI_MSI_SIZE          0x18
#define PCI_MSI_CONTROL       0x02
#define PCI_MSI_ADDRESS       0x04
#define PCI_MSI_UPPER_ADDRESS 0x08
#define PCI_MSI_DATA          0x0c
#define PCI_MSI_MASK          0x10
#define PCI_MSI_PENDING       0x14
#define PCI_MSI_ENABLE        0x0001
#define PCI_MSI_CAPABLE_SHIFT 1 /* Multiple Message Capable, log2 */
#define PCI_MSI_ENABLED_SHIFT 4 /* Multiple Message Enable, log2 */
#define PCI_MSI_ENABLED       0x0070
#define PCI_MSI_64            0x0080
#define PCI_MSI_MASKING       0x0100

/* MSI-X [7.7.2] */
#define PCI_MSIX_SIZE          0x0c
#define PCI_MSIX_CONTROL       0x02
#define PCI_MSIX_TABLE         0x04 /* offset | BIR */
#define PCI_MSIX_PBA           0x08
#define PCI_MSIX_FUNCTION_MASK 0x4000
#define PCI_MSIX_ENABLE        0x8000
#define PCI_MSIX_ENTRY_SIZE    16
#define PCI_MSIX_ENTRY_MASKED  0x00000001u

/* Subsystem ids of a bridge [7.9.23] */
#define PCI_SSVID_SIZE   8
#define PCI_SSVID_VENDOR 4
#define PCI_SSVID_ID     6

/* PCI Express [7.5.3]; offsets from the capability */
#define PCI_EXP_SIZE     0x3c
#define PCI_EXP_FLAGS    0x02
#define PCI_EXP_DEVCAP   0x04
#define PCI_EXP_DEVCTL   0x08
#define PCI_EXP_DEVSTA   0x0a
#define PCI_EXP_LNKCAP   0x0c
#define PCI_EXP_LNKCTL   0x10
#define PCI_EXP_LNKSTA   0x12
#define PCI_EXP_SLTCAP   0x14
#define PCI_EXP_SLTCTL   0x18
#define PCI_EXP_SLTSTA   0x1a
#define PCI_EXP_RTCTL    0x1c
#define PCI_EXP_RTCAP    0x1e
#define PCI_EXP_RTSTA    0x20
#define PCI_EXP_DEVCAP2  0x24
#define PCI_EXP_DEVCTL2  0x28
#define PCI_EXP_LNKCAP2  0x2c

#define PCI_EXP_FLAGS_VERSION_2  0x0002
#define PCI_EXP_FLAGS_TYPE_SHIFT 4
#define PCI_EXP_FLAGS_SLOT       0x0100
#define PCI_EXP_TYPE_ENDPOINT    0
#define PCI_EXP_TYPE_ROOT_PORT   4
#define PCI_EXP_TYPE_RC_ENDPOINT 9 /* Root Complex Integrated Endpoint */

#define PCI_EXP_DEVCAP_ROLE_ERRORS 0x00008000
#define PCI_EXP_DEVCTL_WRITABLE    0x781f /* error reporting, relaxed, no snoop, read size */
#define PCI_EXP_DEVCTL_RESET       0x2810 /* relaxed, no snoop, 512 bytes */
#define PCI_EXP_DEVSTA_RW1C        0x000f
#define PCI_EXP_LNK_SPEED_2_5      0x0001 /* LNKCAP and LNKSTA */
#define PCI_EXP_LNK_WIDTH_1        0x0010
#define PCI_EXP_LNKCAP_DLLLA       0x00100000 /* Data Link Layer Link Active Reporting */
#define PCI_EXP_LNKCAP_ASPM_OPT    0x00400000 /* ASPM Optionality Compliance */
#define PCI_EXP_LNKCAP_PORT_SHIFT  24
#define PCI_EXP_LNKCTL_ASPM        0x0003
#define PCI_EXP_LNKCTL_RCB         0x0008
#define PCI_EXP_LNKCTL_DISABLE     0x0010
#define PCI_EXP_LNKCTL_COMMON      0x0040
#define PCI_EXP_LNKCTL_EXT_SYNC    0x0080
#define PCI_EXP_LNKSTA_DLLLA       0x2000
#define PCI_EXP_SLTCAP_NO_COMMAND  0x00040000 /* No Command Completed Support */
#define PCI_EXP_SLTCAP_NR_SHIFT    19
#define PCI_EXP_SLTCAP_NR_MAX      0x1fff
#define PCI_EXP_SLTSTA_PRESENT     0x0040
#define PCI_EXP_RTCTL_WRITABLE     0x000f
#define PCI_EXP_RTSTA_RW1C         0x00010000
#define PCI_EXP_DEVCAP2_NO_TIMEOUT 0x00000010 /* Completion Timeout Disable Supported */
#define PCI_EXP_DEVCTL2_NO_TIMEOUT 0x0010
#define PCI_EXP_LNKCAP2_2_5        0x00000002

/* Extended capabilities [7.6.3] */
#define PCI_EXT_CAP_FIRST         0x100
#define PCI_EXT_CAP_VERSION_SHIFT 16
#define PCI_EXT_CAP_NEXT_SHIFT    20

/* ECAM [7.2.2]: the address of a register */
#define PCI_ECAM_BUS_SHIFT   20
#define PCI_ECAM_DEVFN_SHIFT 12

#endif
