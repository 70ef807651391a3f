//! Every bound of the program, with its unit in its name. A bound that an operator may change is a setting
//! (`config`), and its default stands here.
