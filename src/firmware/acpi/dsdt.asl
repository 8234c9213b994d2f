/*
 * DSDT of the x86-64 `virt` machine: everything that is the same on every machine. What varies
 * (processors, the windows of PCI0, whether COM1 is there) is in the SSDT that acpi.c makes.
 *
 * Addresses are those of spec/platform_x86.h, which a test compares with this file.
 * Specifications: ACPI 6.5; PCI Firmware Specification 3.3, section 4.5 (_OSC).
 */
DefinitionBlock ("", "DSDT", 2, "NEMU", "NEMUVIRT", 0x00000001)
{
    /* SLP_TYP 0: the value that firmware for Q35 writes without asking ACPI. */
    Name (\_S5, Package (0x01) { 0x00 })

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Include ("pci0.asl")
        }

        /* Motherboard resources that no other device describes. */
        Device (MBRD)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, 0x00)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xB0000000, 0x10000000) /* ECAM */
                Memory32Fixed (ReadWrite, 0xFED00000, 0x00001000) /* platform registers */
                IO (Decode16, 0x0600, 0x0600, 0x01, 0x0C)         /* sleep, PM timer */
            })
        }

        Device (FWCF)
        {
            Name (_HID, "QEMU0002")
            Name (_UID, 0x00)
            Name (_STA, 0x0B) /* present and working, not shown to people */
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0510, 0x0510, 0x01, 0x0C)
            })
        }

        Device (RTC0)
        {
            Name (_HID, EisaId ("PNP0B00"))
            Name (_UID, 0x00)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0070, 0x0070, 0x01, 0x02)
            })
        }

        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 0x00)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x03F8, 0x03F8, 0x01, 0x08)
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 0x04 }
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
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 0x10 }
            })
            OperationRegion (GREG, SystemMemory, 0xFED00000, 0x04)
            Include ("ged.asl")
        }
    }
}
