/*
 * DSDT of the AArch64 `virt` machine: everything that is the same on every machine. What varies
 * (processors, the windows of PCI0, whether COM0 is there) is in the SSDT that acpi_arm64.c makes.
 *
 * Addresses are those of spec/platform_arm64.h, which a test compares with this file.
 * Specifications: ACPI 6.5; PCI Firmware Specification 3.3, section 4.5 (_OSC).
 */
DefinitionBlock ("", "DSDT", 2, "NEMU", "NEMUVIRT", 0x00000001)
{
    Scope (\_SB)
    {
        Device (PCI0)
        {
            Include ("pci0.asl")
            Name (_CCA, 0x01)
        }

        /* Motherboard resources that no other device describes: the ECAM. _CRS is in the SSDT. */
        Device (MBRD)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, 0x00)
        }

        Device (FWCF)
        {
            Name (_HID, "QEMU0002")
            Name (_UID, 0x00)
            Name (_STA, 0x0B) /* present and working, not shown to people */
            Name (_CCA, 0x01)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0x09020000, 0x00000018)
            })
        }

        Device (COM0)
        {
            Name (_HID, "ARMH0011")
            Name (_UID, 0x00)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0x09000000, 0x00001000)
                Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { 33 }
            })
        }

        Device (PWRB)
        {
            Name (_HID, EisaId ("PNP0C0C"))
            Name (_UID, 0x00)
        }

        Device (GED0)
        {
            Name (_HID, "ACPI0013")
            Name (_UID, 0x00)
            Name (_CRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 41 }
            })
            OperationRegion (GREG, SystemMemory, 0x09080000, 0x04)
            Include ("ged.asl")
        }
    }
}
