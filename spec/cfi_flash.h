/*
 * Flash commands of the Intel/Sharp Extended Command Set (CFI primary command set 0x0001), and
 * the CFI query. JEDEC JESD68.01; Intel StrataFlash J3 datasheet, section 10 and appendix.
 */
#ifndef SPEC_CFI_FLASH_H
#define SPEC_CFI_FLASH_H

#define CFI_CMD_PROGRAM_ALT  0x10
#define CFI_CMD_ERASE	     0x20
#define CFI_CMD_PROGRAM	     0x40
#define CFI_CMD_CLEAR_STATUS 0x50
#define CFI_CMD_LOCK	     0x01 /* after LOCK_SETUP */
#define CFI_CMD_LOCK_SETUP   0x60
#define CFI_CMD_BUFFER	     0xE8
#define CFI_CMD_READ_STATUS  0x70
#define CFI_CMD_READ_ID	     0x90
#define CFI_CMD_QUERY	     0x98
#define CFI_CMD_CONFIRM	     0xD0
#define CFI_CMD_READ_ARRAY   0xFF

#define CFI_STATUS_READY	 0x80
#define CFI_STATUS_ERASE_ERROR	 0x20
#define CFI_STATUS_PROGRAM_ERROR 0x10 /* both error bits: bad command sequence */

#define CFI_INTEL_MANUFACTURER 0x89
#define CFI_INTEL_J3_64MBIT    0x17
#define CFI_INTEL_P30_256MBIT  0x19

#endif
