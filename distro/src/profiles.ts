/**
 * The hardware profiles of the reference distro: `cloud` for virtual machines,
 * `generic` for ordinary ones too.
 */
import * as KernelModules from "@kios/stages-runtime/KernelModules"
import * as PersistentStore from "@kios/stages-runtime/PersistentStore"
import * as Watchdog from "@kios/stages-runtime/Watchdog"
import type { HardwareProfile, ModuleGroup } from "./HardwareProfile.ts"

const words = (text: string): ReadonlyArray<string> => text.trim().split(/\s+/u)

/** On every node, whatever it runs on. */
const everywhere: ReadonlyArray<ModuleGroup> = [
  {
    name: "boot",
    why: "the container runtime's snapshotter and the data partition's filesystem",
    modules: KernelModules.bootModules,
    loaded: "boot",
  },
  {
    name: "node",
    why: "bridges whose packets iptables sees, connection tracking, the links of pods",
    modules: KernelModules.nodeModules,
    loaded: "node",
  },
  {
    name: "death of init",
    why: "the kernel's log kept in the firmware, a watchdog where the hardware has none: two stages load them",
    modules: [PersistentStore.module, Watchdog.softwareModule],
    loaded: "stage",
  },
  {
    name: "pods",
    why: "what kube-proxy and the usual CNI plugins take for granted: nobody loads it for them",
    modules: KernelModules.podModules,
    loaded: "pods",
  },
]

/** In the image for those who list them. */
const listed: ReadonlyArray<ModuleGroup> = [
  {
    name: "ipvs",
    why: "kube-proxy's ipvs mode",
    modules: words(
      "ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sh ip_vs_mh ip_vs_sed ip_vs_nq xt_ipvs",
    ),
    loaded: "listed",
  },
  {
    name: "ipset",
    why: "network policies of kube-router, Calico, Weave; kube-proxy's ipvs mode",
    modules: words(
      `ip_set xt_set ip_set_bitmap_port ip_set_hash_ip ip_set_hash_ipport ip_set_hash_ipportip
       ip_set_hash_ipportnet ip_set_hash_net ip_set_hash_netport ip_set_hash_netiface ip_set_list_set`,
    ),
    loaded: "listed",
  },
  {
    name: "iptables",
    why: "matches and targets that some CNI plugins use besides kube-proxy's",
    modules: words(
      `iptable_raw ip6table_raw iptable_security ipt_rpfilter
       ip6t_rpfilter nf_log_syslog xt_bpf xt_CT xt_LOG xt_NFLOG xt_NFQUEUE xt_NETMAP xt_TCPMSS xt_TPROXY xt_socket xt_cgroup
       xt_connlimit xt_connmark xt_hashlimit xt_iprange xt_length xt_limit xt_mac xt_owner xt_pkttype xt_physdev xt_REDIRECT
       xt_policy xt_rateest xt_sctp xt_state xt_string xt_time xt_u32 xt_nfacct xt_CHECKSUM xt_DSCP xt_CLASSIFY`,
    ),
    loaded: "listed",
  },
  {
    name: "nftables",
    why: "expressions that some CNI plugins and mesh proxies use besides kube-proxy's",
    modules: words(
      `nft_limit nft_log nft_redir nft_socket nft_tproxy nft_queue nft_quota nft_connlimit nft_hash nft_flow_offload nf_flow_table_inet
       nft_fib_netdev nft_dup_netdev nft_fwd_netdev nft_xfrm nft_tunnel nft_synproxy nfnetlink_log nfnetlink_queue`,
    ),
    loaded: "listed",
  },
  {
    name: "tunnels and links",
    why: "wireguard, geneve, IP-in-IP, GRE, macvlan, ipvlan, VLANs: what a CNI plugin is configured to use",
    modules: words(
      `wireguard geneve ipip ip_gre ip6_gre ip6_tunnel sit fou dummy macvlan macvtap ipvlan vrf 8021q tun tap ifb openvswitch vport-vxlan vport-geneve`,
    ),
    loaded: "listed",
  },
  {
    name: "traffic control",
    why: "bandwidth limits and eBPF at an interface",
    modules: words(
      `sch_ingress sch_fq sch_fq_codel sch_htb sch_tbf sch_prio sch_netem cls_bpf cls_u32 cls_fw cls_flower
       cls_matchall act_bpf act_mirred act_police act_gact act_skbedit act_pedit act_csum act_vlan`,
    ),
    loaded: "listed",
  },
  {
    name: "IPsec",
    why: "encryption between nodes (Cilium, Calico)",
    modules: words(
      `esp4 esp6 xfrm_user xfrm_interface xfrm_algo ah4 ah6 af_key authenc echainiv seqiv gcm ghash-generic
       chacha20poly1305 aesni-intel`,
    ),
    loaded: "listed",
  },
  {
    name: "conntrack helpers",
    why: "protocols with a second connection, through NAT; connection counts",
    modules: words("nf_conntrack_ftp nf_nat_ftp nf_conntrack_sip nf_nat_sip nf_conntrack_tftp nf_nat_tftp"),
    loaded: "listed",
  },
  {
    name: "diagnosis",
    why: "ss, and what reads sockets through netlink",
    modules: words("inet_diag tcp_diag udp_diag unix_diag netlink_diag af_packet_diag"),
    loaded: "listed",
  },
  {
    name: "volumes",
    why: "filesystems and block devices that CSI drivers mount: NFS, XFS, iSCSI, NVMe over TCP, device mapper",
    modules: words(
      `nfs nfsv3 nfsv4 xfs iscsi_tcp nvme-tcp loop nbd dm-mod dm-crypt xts aesni-intel dm-thin-pool dm-snapshot dm-multipath
       dm-round-robin dm-service-time fuse vfat nls_ascii nls_cp437 isofs sr_mod sg`,
    ),
    loaded: "listed",
  },
]

/** What QEMU has, stored so that it loads fastest. */
const virtio: ModuleGroup = {
  name: "virtio",
  why: "disks, network and random numbers of QEMU, KVM and most clouds; AHCI is in every PC",
  modules: words("virtio_blk virtio_scsi virtio_net virtio_rng ahci sd_mod"),
  loaded: "device",
  plain: true,
}

const machine: ModuleGroup = {
  name: "buttons",
  why: "the power button, by which clouds and people shut a machine down",
  modules: words("button evdev"),
  loaded: "device",
  plain: true,
}

const virtualMachines: ReadonlyArray<ModuleGroup> = [
  virtio,
  machine,
  {
    name: "disks of virtual machines",
    why: "older ATA, and the paravirtual disks of VMware, Hyper-V and Xen; NVMe is built into the cloud kernel",
    modules: words("ata_piix ata_generic vmw_pvscsi hv_storvsc xen-blkfront xen-scsifront"),
    loaded: "device",
  },
  {
    name: "networks of virtual machines",
    why: "VMware, Hyper-V and Azure, Xen, Amazon, Google, Oracle, and the virtual functions that clouds pass through",
    modules: words("vmxnet3 hv_netvsc mana xen-netfront ena gve idpf ixgbevf mlx4_en mlx5_core ionic"),
    loaded: "device",
  },
  {
    name: "virtual machine services",
    why: "buses, clocks, memory on demand and watchdogs that hypervisors offer",
    modules: words(
      "virtio_mmio virtio_balloon virtio_mem hv_utils hv_balloon pci-hyperv xen-pcifront vmw_vsock_virtio_transport i6300esb wdat_wdt",
    ),
    loaded: "device",
  },
]

/**
 * Debian's cloud kernel and all that virtual machines have: the default.
 *
 * @example
 * ```ts
 * import { cloud } from "@kios/distro/profiles"
 *
 * const groups = cloud.modules.map((group) => group.name)
 * ```
 */
export const cloud: HardwareProfile = {
  name: "cloud",
  kernel: "kernel",
  modules: [...everywhere, ...virtualMachines, ...listed],
}

const physicalMachines: ReadonlyArray<ModuleGroup> = [
  {
    name: "bonds",
    why: "several network interfaces as one",
    modules: words("bonding team team_mode_activebackup team_mode_loadbalance"),
    loaded: "listed",
  },
  {
    name: "NVMe",
    why: "a module of this kernel, and what most machines boot from",
    modules: words("nvme"),
    loaded: "device",
    plain: true,
  },
  {
    name: "disks of physical machines",
    why: "SATA and SAS controllers, RAID controllers, Intel's VMD, eMMC, NVDIMMs",
    modules: words(
      `vmd sata_nv sata_sil sata_sil24 sata_mv sata_via sata_promise pata_amd pata_jmicron pata_marvell
       megaraid_sas mpt3sas mpi3mr mptspi mptsas smartpqi hpsa aacraid arcmsr 3w-9xxx 3w-sas isci pm80xx mvsas hptiop
       stex esas2r qla2xxx lpfc bfa fnic ses mmc_block sdhci-pci sdhci-acpi rtsx_pci_sdmmc nd_pmem`,
    ),
    loaded: "device",
  },
  {
    name: "USB",
    why: "disks, keyboards and network adapters on USB; a keyboard for the console of a machine at hand",
    modules: words(
      `xhci_pci ehci_pci ohci_pci uhci_hcd usb_storage uas usbhid hid_generic r8152 ax88179_178a asix cdc_ether
       cdc_ncm`,
    ),
    loaded: "device",
  },
  {
    name: "networks of physical machines",
    why: "the Ethernet of boards and servers; those that need firmware start without its features, or not at all",
    modules: words(
      `e1000 e1000e igb igbvf igc ixgbe i40e iavf ice e100 r8169 8139too 8139cp tg3 bnx2 bnx2x bnxt_en alx atl1c
       atlantic forcedeth sky2 be2net cxgb4 enic qede qlcnic netxen_nic sfc nfp mlx4_en mlx5_core amd-xgbe via-rhine
       via-velocity jme sis900 dwmac-intel pcnet32 ne2k-pci`,
    ),
    loaded: "device",
  },
  {
    name: "boards",
    why: "watchdogs, temperatures, and the bus of the management controller",
    modules: words(
      "iTCO_wdt sp5100_tco ie31200_edac coretemp k10temp acpi_power_meter ipmi_si ipmi_devintf i2c_i801 i2c_piix4 lpc_ich",
    ),
    loaded: "device",
  },
  {
    name: "virtualization",
    why: "for pods that run virtual machines (Kata Containers, KubeVirt)",
    modules: words("kvm_intel kvm_amd vhost_net vhost_vsock vfio_pci"),
    loaded: "listed",
  },
]

/**
 * Debian's full kernel with the drivers of ordinary machines besides those of
 * virtual ones. No firmware: Debian has most of it outside of what is free.
 *
 * @example
 * ```ts
 * import { generic } from "@kios/distro/profiles"
 * import { recipe } from "@kios/distro/recipe"
 *
 * const forServers = { ...recipe, hardware: generic }
 * ```
 */
export const generic: HardwareProfile = {
  name: "generic",
  kernel: "kernel-generic",
  modules: [...everywhere, ...virtualMachines, ...physicalMachines, ...listed],
}

/**
 * The profiles by name, as `kios build --profile` takes them.
 *
 * @example
 * ```ts
 * import { profiles } from "@kios/distro/profiles"
 *
 * const names = Object.keys(profiles) // ["cloud", "generic"]
 * ```
 */
export const profiles = { cloud, generic } as const
