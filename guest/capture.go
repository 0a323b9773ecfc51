package main

import (
	"encoding/binary"
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	tcpPort = 15001 // captured connections arrive here
	dnsPort = 15053 // and captured DNS, UDP and TCP
	// guestAddress is RFC 7600's dummy address: resolvers ask for IPv4 only where an address beyond loopback exists.
	guestAddress = "192.0.0.8"
)

var guestIP = net.ParseIP(guestAddress).To4()

// setupNet brings up lo with one address, and makes every IPv4 address local (AnyIP), so that no packet needs a way out.
func setupNet() error {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	lo := binary.NativeEndian.AppendUint32(nil, 1)
	link := make([]byte, 16) // struct ifinfomsg
	copy(link[4:], lo)
	binary.NativeEndian.PutUint32(link[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(link[12:], unix.IFF_UP)
	addr := []byte{unix.AF_INET, 32, 0, unix.RT_SCOPE_UNIVERSE, 1, 0, 0, 0} // struct ifaddrmsg
	route := []byte{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_LOCAL, unix.RTPROT_BOOT, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0}
	addrAttrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.IFA_LOCAL, Data: guestIP}, {Type: unix.IFA_ADDRESS, Data: guestIP}})
	if err != nil {
		return err
	}
	routeAttrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.RTA_OIF, Data: lo}, {Type: unix.RTA_PREFSRC, Data: guestIP}})
	if err != nil {
		return err
	}
	for _, m := range []struct {
		kind  netlink.HeaderType
		flags netlink.HeaderFlags
		data  []byte
	}{
		{unix.RTM_NEWLINK, 0, link},
		{unix.RTM_NEWADDR, netlink.Create, append(addr, addrAttrs...)},
		{unix.RTM_NEWROUTE, netlink.Create, append(route, routeAttrs...)},
	} {
		head := netlink.Header{Type: m.kind, Flags: netlink.Request | netlink.Acknowledge | m.flags}
		if _, err := c.Execute(netlink.Message{Header: head, Data: m.data}); err != nil {
			return err
		}
	}
	return nil
}

func rule(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func protocol(op expr.CmpOp, number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: []byte{number}}}
}

// beyond matches packets that are not for this machine itself.
func beyond() []expr.Any {
	dst := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}
	return []expr.Any{
		dst,
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: guestIP},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte{255, 0, 0, 0}, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{127, 0, 0, 0}},
	}
}

func toPort(p uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(p)},
	}
}

func redirect(p uint16) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(p)}, &expr.Redir{RegisterProtoMin: 1}}
}

// setupCapture programs, in nft's words:
//
//	table ip paddock {
//	  chain capture { type nat hook output priority dstnat
//	    ip daddr != { 127/8, the guest } udp dport 53 redirect to :15053
//	    ip daddr != { 127/8, the guest } tcp dport 53 redirect to :15053
//	    ip daddr != { 127/8, the guest } meta l4proto tcp redirect to :15001 }
//	  chain refuse { type filter hook output priority filter
//	    ip daddr != { 127/8, the guest } meta l4proto != tcp reject with icmp admin-prohibited } }
//
// No exception for the agent is needed, since it never dials out: root in the guest is captured too. What has been
// redirected has a loopback destination by the time the second chain sees it. IPv6 has no route at all.
func setupCapture() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "paddock"})
	nat := c.AddChain(&nftables.Chain{Name: "capture", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest})
	filter := c.AddChain(&nftables.Chain{Name: "refuse", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter})
	tcp, udp := byte(unix.IPPROTO_TCP), byte(unix.IPPROTO_UDP)
	reject := []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 13}}
	for _, r := range []struct {
		chain *nftables.Chain
		exprs []expr.Any
	}{
		{nat, rule(protocol(expr.CmpOpEq, udp), beyond(), toPort(53), redirect(dnsPort))},
		{nat, rule(protocol(expr.CmpOpEq, tcp), beyond(), toPort(53), redirect(dnsPort))},
		{nat, rule(protocol(expr.CmpOpEq, tcp), beyond(), redirect(tcpPort))},
		{filter, rule(protocol(expr.CmpOpNeq, tcp), beyond(), reject)},
	} {
		c.AddRule(&nftables.Rule{Table: t, Chain: r.chain, Exprs: r.exprs})
	}
	return c.Flush()
}
