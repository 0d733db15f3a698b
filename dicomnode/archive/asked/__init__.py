"""What people, rules and monitors ask of the rows; nothing here changes one."""
